"""Group commit on PostgreSQL: one statement stores what many conversations write.

All of its parts see the snapshot of its start; only a row that it locks is seen as it is then. So
what decides, the fence and the counters, stands in the conversation's row and is read under its
lock, and a prune, which looks at messages, is done only where the counters under the lock are those
of the snapshot. What somebody else has locked is not waited for. A write that finds any of this not
as it needs it is left out, and goes the portable way by itself. A conversation that somebody else
is about to begin can't be told from none, and would be waited for: soon, all of them are left out.
Who writes alone is nobody's burden, and waits for a locked row too, for 10 ms.

Conversations are looked for one by one, by an upsert where they are changed: joined, all of them would
be read by a plan that was made while there were few, until the next ANALYZE.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from asyncpg import InterfaceError, PostgresError
from asyncpg.exceptions import LockNotAvailableError

from agno_sql.errors import OutcomeUnknownError
from agno_sql.store.database import ANSWER_WITHIN_S
from agno_sql.store.faults import Fault, classify, code_of
from agno_sql.store.rows import message_row
from agno_sql.store.text import encode
from agno_sql.store.writes import columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asyncpg import Connection

    from agno_sql.store.writes import Begin, Group

_FEW: Final = 2  # messages: each number has statements of its own, which are prepared once
# Arrays hide behind a SELECT: the planner would count a constant one, and plan anew each time.
_GIVEN: Final = """
given AS MATERIALIZED (
    SELECT given.* FROM (SELECT set_config('lock_timeout', '100ms', true)) bounded, unnest(
        (SELECT $3::int[]), (SELECT $4::text[]), (SELECT $5::text[]), (SELECT $6::text[]),
        (SELECT $7::int[]), (SELECT $8::text[]), (SELECT $9::text[]), (SELECT $10::timestamptz[]),
        (SELECT $11::text[]), (SELECT $12::text[]), (SELECT $13::text[]), (SELECT $14::bigint[]),
        (SELECT $15::bigint[])
    ) AS given (
        place, kind, user_id, session_id, added, run_id, lease_token, lease_expires_at,
        agent_id, model, input_sha256, input_tokens, output_tokens
    )
)"""
_ONE_GIVEN: Final = """
given AS MATERIALIZED (
    SELECT
        $3::int AS place, $4::text AS kind, $5::text AS user_id, $6::text AS session_id,
        $7::int AS added, $8::text AS run_id, $9::text AS lease_token,
        $10::timestamptz AS lease_expires_at, $11::text AS agent_id, $12::text AS model,
        $13::text AS input_sha256, $14::bigint AS input_tokens, $15::bigint AS output_tokens
    FROM (SELECT set_config('lock_timeout', '10ms', true)) bounded
)"""
_LOCKED: Final = """
locked AS MATERIALIZED (
    SELECT
        given.*, c.*,
        CASE WHEN given.kind = 'append' THEN c.held_from_seq END AS protected,
        CASE WHEN given.kind IN ('append', 'complete')
            THEN greatest(c.message_count + given.added - $2::bigint, 0) ELSE 0 END AS excess
    FROM given CROSS JOIN LATERAL (
        SELECT
            c.first_seq, c.last_seq, c.message_count, c.run_id AS held_by,
            c.run_first_seq AS held_from_seq, c.lease_token AS held_token,
            c.lease_expires_at AS held_until
        FROM conversations c
        WHERE c.user_id = given.user_id AND c.session_id = given.session_id
            AND CASE given.kind
                WHEN 'append' THEN true
                WHEN 'begin' THEN c.run_id IS NULL
                ELSE c.run_id = given.run_id AND c.lease_token = given.lease_token END
        FOR UPDATE SKIP LOCKED
    ) c
)"""
_KEPT: Final = """
planned AS (SELECT locked.*, first_seq AS kept FROM locked)"""
_PRUNED: Final = """
pruning AS MATERIALIZED (
    SELECT locked.*, CASE WHEN excess = 0 THEN first_seq ELSE least(protected, (
        SELECT m.seq FROM messages m
        WHERE m.user_id = locked.user_id AND m.session_id = locked.session_id
            AND m.seq >= locked.first_seq + locked.excess AND m.role <> 'tool'
        ORDER BY m.seq LIMIT 1
    )) END AS kept
    FROM locked
    WHERE excess = 0 OR (first_seq, last_seq, message_count) = (
        SELECT seen.first_seq, seen.last_seq, seen.message_count FROM conversations seen
        WHERE seen.user_id = locked.user_id AND seen.session_id = locked.session_id
    )
), planned AS MATERIALIZED (
    SELECT * FROM pruning
    WHERE kept = first_seq OR kept > first_seq AND NOT EXISTS (
        SELECT FROM messages m
        WHERE m.user_id = pruning.user_id AND m.session_id = pruning.session_id
            AND m.role = 'system' AND m.seq BETWEEN pruning.first_seq AND pruning.kept
    )
), pruned AS (
    DELETE FROM messages m USING planned
    WHERE planned.kept > planned.first_seq AND m.user_id = planned.user_id
        AND m.session_id = planned.session_id
        AND m.seq >= planned.first_seq AND m.seq < planned.kept
), forgotten AS (
    DELETE FROM runs r USING planned
    WHERE planned.kept > planned.first_seq AND r.user_id = planned.user_id
        AND r.session_id = planned.session_id
        AND r.last_seq < planned.kept AND r.status <> 'running'
)"""
_CHANGED: Final = """
updated AS (
    INSERT INTO conversations AS c (
        user_id, session_id, first_seq, last_seq, message_count, created_at, last_active_at,
        run_id, run_first_seq, lease_token, lease_expires_at
    )
    SELECT
        user_id, session_id, kept, last_seq + added, message_count + added - (kept - first_seq),
        $1, $1,
        CASE kind WHEN 'begin' THEN run_id WHEN 'complete' THEN NULL ELSE held_by END,
        CASE kind
            WHEN 'begin' THEN last_seq + 1 WHEN 'complete' THEN NULL ELSE held_from_seq END,
        CASE kind WHEN 'begin' THEN lease_token ELSE held_token END,
        CASE kind
            WHEN 'append' THEN held_until WHEN 'complete' THEN NULL ELSE lease_expires_at END
    FROM planned
    ON CONFLICT (user_id, session_id) DO UPDATE SET
        first_seq = excluded.first_seq, last_seq = excluded.last_seq,
        message_count = excluded.message_count,
        last_active_at = greatest(c.last_active_at, excluded.last_active_at),
        run_id = excluded.run_id, run_first_seq = excluded.run_first_seq,
        lease_token = excluded.lease_token, lease_expires_at = excluded.lease_expires_at
    RETURNING user_id, session_id, last_seq
), created AS (
    INSERT INTO conversations (
        user_id, session_id, first_seq, last_seq, message_count, created_at, last_active_at,
        run_id, run_first_seq, lease_token, lease_expires_at
    )
    SELECT
        user_id, session_id, 1, added, added, $1, $1,
        run_id, CASE kind WHEN 'begin' THEN 1 END, lease_token, lease_expires_at
    FROM given
    WHERE kind IN ('append', 'begin') AND ($2::bigint IS NULL OR added <= $2) AND (
        SELECT true FROM conversations c
        WHERE c.user_id = given.user_id AND c.session_id = given.session_id
        LIMIT 1
    ) IS NULL
    ORDER BY user_id COLLATE "C", session_id COLLATE "C"
    ON CONFLICT DO NOTHING
    RETURNING user_id, session_id, last_seq
), numbered AS (
    SELECT given.*, done.last_seq
    FROM (SELECT * FROM updated UNION ALL SELECT * FROM created) done JOIN given
        ON given.user_id = done.user_id AND given.session_id = done.session_id
)"""
_ADVANCED: Final = """
numbered AS (
    UPDATE conversations c SET
        last_seq = c.last_seq + given.added, message_count = c.message_count + given.added,
        last_active_at = greatest(c.last_active_at, $1),
        run_id = CASE kind WHEN 'begin' THEN given.run_id WHEN 'complete' THEN NULL ELSE c.run_id END,
        run_first_seq = CASE kind
            WHEN 'begin' THEN c.last_seq + 1 WHEN 'complete' THEN NULL ELSE c.run_first_seq END,
        lease_token = CASE kind WHEN 'begin' THEN given.lease_token ELSE c.lease_token END,
        lease_expires_at = CASE kind
            WHEN 'append' THEN c.lease_expires_at WHEN 'complete' THEN NULL
            ELSE given.lease_expires_at END
    FROM given
    WHERE c.user_id = given.user_id AND c.session_id = given.session_id
        AND CASE kind
            WHEN 'append' THEN true
            WHEN 'begin' THEN c.run_id IS NULL
            ELSE c.run_id = given.run_id AND c.lease_token = given.lease_token END
        AND ($2::bigint IS NULL OR kind IN ('begin', 'step') OR c.message_count + added <= $2)
    RETURNING given.*, c.last_seq
)"""
_STORED: Final = """
stored AS (
    INSERT INTO messages (
        user_id, session_id, seq, role, content, created_at, name, tool_call_id, tool_calls,
        run_id, run_step, input_tokens, output_tokens
    )
    SELECT
        numbered.user_id, numbered.session_id, numbered.last_seq - new.behind, new.role,
        new.content, new.created_at, new.name, new.tool_call_id, new.tool_calls::jsonb,
        new.run_id, new.run_step, new.input_tokens, new.output_tokens
    FROM %s AS new (
        place, behind, role, content, created_at, name, tool_call_id, tool_calls, run_id,
        run_step, input_tokens, output_tokens
    ) JOIN numbered ON numbered.place = new.place
)"""
_NEW_TYPES: Final = (
    *("int", "int", "text", "text", "timestamptz", "text", "text", "text", "text", "int"),
    *("bigint", "bigint"),
)
_RUNS: Final = """
begun AS (
    INSERT INTO runs (
        user_id, session_id, run_id, agent_id, status, attempt, input_sha256, first_seq,
        last_seq, model, input_tokens, output_tokens, started_at
    )
    SELECT
        user_id, session_id, run_id, agent_id, 'running', 1, input_sha256, last_seq, last_seq,
        model, input_tokens, output_tokens, $1
    FROM numbered WHERE kind = 'begin'
), ended AS (
    UPDATE runs r SET
        status = 'completed', last_seq = numbered.last_seq, finished_at = $1,
        input_tokens = numbered.input_tokens, output_tokens = numbered.output_tokens
    FROM numbered
    WHERE numbered.kind = 'complete' AND r.user_id = numbered.user_id
        AND r.session_id = numbered.session_id AND r.run_id = numbered.run_id
)"""


@cache
def _statement(*, lone: int | None, has_runs: bool, prunes: bool) -> str:
    """Return what stores groups, without the parts that have nothing to do.

    Beginning and ending them would take longer than all that a lone writer asks for: *lone* is how
    many messages there are of a single group.
    """
    given = _GIVEN if lone is None else _ONE_GIVEN
    pruned = _PRUNED if prunes else _KEPT
    return _joined(given, _LOCKED, pruned, _CHANGED, _stored(lone), has_runs=has_runs)


@cache
def _lone_statement(*, lone: int, has_runs: bool) -> str:
    """Return what stores a single group in a conversation that is there, if nothing is to prune.

    What decides stands in the row that it updates: so it needs no lock beforehand, and takes half
    as long. It waits for a row that somebody else holds, up to lock_timeout.
    """
    return _joined(_ONE_GIVEN, _ADVANCED, _stored(lone), has_runs=has_runs)


def _stored(lone: int | None) -> str:
    width, types = len(_NEW_TYPES), _NEW_TYPES * (lone or 1)
    values = [f"${number}::{kind}" for number, kind in enumerate(types, start=16)]
    if lone is None:
        return _STORED % f"unnest({', '.join(f'(SELECT {array}[])' for array in values)})"
    # Each array would be unfolded into a store of its own.
    rows = [f"({', '.join(values[at : at + width])})" for at in range(0, len(values), width)]
    return _STORED % f"(VALUES {', '.join(rows)})"


def _joined(*parts: str, has_runs: bool) -> str:
    whole = ",".join((*parts, _RUNS) if has_runs else parts)
    return f"WITH {whole.lstrip()} SELECT place, last_seq FROM numbered"  # noqa: S608  (our own)


async def store(driver: Connection[Any], begin: Begin, *, capacity: int | None) -> dict[int, int]:
    """Store what *begin* returns in one commit; return the last seq of each group by its index.

    What is not in there was left out, and nothing of it stored.

    Raises:
        OutcomeUnknownError: The connection broke: nobody knows whether anything was stored.
    """
    if driver.is_closed():
        raise ConnectionResetError("the server closed this connection")
    groups, at = begin()
    statements, values = _tries(groups, at, capacity)
    stored: list[Any] = []
    try:
        for statement in statements:
            stored = await driver.fetch(statement, *values, timeout=ANSWER_WITHIN_S)
            if stored:
                break
    except LockNotAvailableError:
        return {}
    except (OSError, InterfaceError, PostgresError) as error:
        if not isinstance(error, OSError) and classify(error) is not Fault.DISCONNECTED:
            raise
        raise OutcomeUnknownError(
            f"the connection broke while messages were stored ({code_of(error)}): read what is "
            "stored before you try again"
        ) from error
    return dict(stored)


def _tries(
    groups: Sequence[Group], at: datetime, capacity: int | None
) -> tuple[list[str], list[Any]]:
    """Return statements that store *groups*, the next one if one stores nothing, and their values."""
    given = [_given_row(place, group, at) for place, group in enumerate(groups)]
    new = [row for place, group in enumerate(groups) for row in _message_rows(place, group, at)]
    lone = len(new) if len(groups) == 1 and len(new) <= _FEW else None
    has_runs = any(group.first.lease is not None for group in groups)
    prunes = capacity is not None and any(group.first.prunes for group in groups)
    if lone is None:
        values = [at, capacity, *columns(given, 13), *columns(new, len(_NEW_TYPES))]
    else:
        values = [at, capacity, *given[0], *chain.from_iterable(new)]
    tries = [_statement(lone=lone, has_runs=has_runs, prunes=prunes)]
    if lone is not None and not prunes:
        tries.insert(0, _lone_statement(lone=lone, has_runs=has_runs))
    return tries, values


def _given_row(place: int, group: Group, at: datetime) -> tuple[Any, ...]:
    write = group.first
    lease, new, usage = write.lease, write.new, write.usage
    return (
        place,
        write.kind,
        *write.key,
        len(group.messages),
        lease and lease.key.run_id,
        lease and lease.token,
        lease and at + lease.duration,
        new and encode(new.agent_id),
        new and encode(new.model),
        new and new.input_sha256,
        usage.input_tokens if usage else 0,
        usage.output_tokens if usage else 0,
    )


def _message_rows(place: int, group: Group, at: datetime) -> list[tuple[Any, ...]]:
    newest = len(group.messages) - 1
    return [
        (place, newest - index, *message_row(message, at, json.dumps))
        for index, message in enumerate(group.messages)
    ]
