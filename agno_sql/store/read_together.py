"""Reading what several tasks want to see of their conversations with one statement.

Every seq from ``first_seq`` to ``last_seq`` is stored, so the newest messages are a range that can
be told from the conversation's row: nothing has to be counted, and no dead row in front of
``first_seq`` is walked. Below it there are only system messages, found by their own index.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from agno_sql.store.database import ANSWER_WITHIN_S
from agno_sql.store.rows import MESSAGE_COLUMNS
from agno_sql.store.writes import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import aiosqlite
    import asyncpg

_ENDLESS: Final = 2**62
_SEQ: Final = itemgetter(1)
_MESSAGE: Final = ", ".join(f"m.{column}" for column in MESSAGE_COLUMNS)

# Arrays hide behind a SELECT: the planner would count a constant one, and plan anew each time. And
# each conversation is looked for by itself: joined, all would be read by a plan that was made while
# there were few, until the next ANALYZE.
_WANTED: Final = """
SELECT * FROM unnest(
    (SELECT $1::int[]), (SELECT $2::text[]), (SELECT $3::text[]), (SELECT $4::bigint[]),
    (SELECT $5::bigint[]), (SELECT $6::boolean[])
) AS wanted (place, user_id, session_id, most, before, all_system)
"""
_ONE_WANTED: Final = """
SELECT
    $1::int AS place, $2::text AS user_id, $3::text AS session_id, $4::bigint AS most,
    $5::bigint AS before, $6::boolean AS all_system
"""
_POSTGRESQL: Final = f"""
SELECT wanted.place, {_MESSAGE}
FROM (%s) wanted CROSS JOIN LATERAL (
    SELECT c.user_id, c.session_id, c.first_seq, c.last_seq FROM conversations c
    WHERE c.user_id = wanted.user_id AND c.session_id = wanted.session_id
    LIMIT 1
) c CROSS JOIN LATERAL (
    SELECT greatest(c.first_seq, least(c.last_seq, wanted.before - 1) - wanted.most + 1) AS seq
) lowest
CROSS JOIN LATERAL (
    SELECT {_MESSAGE} FROM messages m
    WHERE m.user_id = c.user_id AND m.session_id = c.session_id
        AND m.seq >= lowest.seq AND m.seq < wanted.before
    UNION ALL
    SELECT {_MESSAGE} FROM messages m
    WHERE m.user_id = c.user_id AND m.session_id = c.session_id AND m.role = 'system'
        AND m.seq < least(lowest.seq, wanted.before)
        AND (wanted.all_system OR lowest.seq = c.first_seq)
) m
"""  # noqa: S608  (our own columns)
_OF_ALL: Final = _POSTGRESQL % _WANTED
_OF_ONE: Final = _POSTGRESQL % _ONE_WANTED
_SQLITE: Final = f"""
WITH wanted AS MATERIALIZED (
    SELECT
        given.key AS place, c.user_id, c.session_id, c.first_seq,
        json_extract(given.value, '$[3]') AS before,
        json_extract(given.value, '$[4]') AS all_system,
        max(
            c.first_seq,
            min(c.last_seq, json_extract(given.value, '$[3]') - 1)
                - json_extract(given.value, '$[2]') + 1
        ) AS lowest
    FROM json_each(?) given CROSS JOIN conversations c
        ON c.user_id = json_extract(given.value, '$[0]')
        AND c.session_id = json_extract(given.value, '$[1]')
)
SELECT wanted.place, {_MESSAGE} FROM wanted CROSS JOIN messages m
    ON m.user_id = wanted.user_id AND m.session_id = wanted.session_id
    AND m.seq >= wanted.lowest AND m.seq < wanted.before
UNION ALL
SELECT wanted.place, {_MESSAGE} FROM wanted CROSS JOIN messages m
    ON m.user_id = wanted.user_id AND m.session_id = wanted.session_id AND m.role = 'system'
    AND m.seq < min(wanted.lowest, wanted.before)
WHERE wanted.all_system OR wanted.lowest = wanted.first_seq
"""  # noqa: S608  (our own columns)


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """The newest *limit* messages of a conversation with a seq below *before*.

    With *all_system*, all of its system messages and the newest *limit* others.
    """

    key: tuple[str, str]
    limit: int | None
    before: int | None
    all_system: bool = False

    @property
    def most(self) -> int:
        """The limit, a number in any case."""
        return _ENDLESS if self.limit is None else min(self.limit, _ENDLESS)

    def picked(self, rows: list[Sequence[Any]]) -> list[Sequence[Any]] | None:
        """Return what of *rows* was asked for, oldest first; ``None`` if it may not be all."""
        rows.sort(key=_SEQ)
        newest = rows[max(0, len(rows) - self.most) :]
        if not self.all_system:
            return newest
        # System messages took the place of others, of which there may be more.
        is_whole = len(rows) < self.most or all(row[2] != "system" for row in newest)
        return rows if is_whole else None


async def read_postgresql(
    driver: asyncpg.Connection[Any], reads: Sequence[Read]
) -> list[list[Sequence[Any]]]:
    """Return the rows of *reads*, each as row_message takes it, in no order."""
    rows = [(place, *_wanted(read)) for place, read in enumerate(reads)]
    if len(rows) == 1:  # who reads alone is served by keys, without a join
        found = await driver.fetch(_OF_ONE, *rows[0], timeout=ANSWER_WITHIN_S)
    else:
        found = await driver.fetch(_OF_ALL, *columns(rows, 6), timeout=ANSWER_WITHIN_S)
    return _by_place(found, len(reads))


async def read_sqlite(
    driver: aiosqlite.Connection, reads: Sequence[Read]
) -> list[list[Sequence[Any]]]:
    """Return the rows of *reads*, each as row_message takes it, in no order."""
    wanted = json.dumps([_wanted(read) for read in reads])
    return _by_place(await driver.execute_fetchall(_SQLITE, (wanted,)), len(reads))


def _wanted(read: Read) -> tuple[str, str, int, int, bool]:
    before = _ENDLESS if read.before is None else min(read.before, _ENDLESS)
    return *read.key, read.most, before, read.all_system


def _by_place(rows: Iterable[Any], count: int) -> list[list[Sequence[Any]]]:
    by_place: list[list[Sequence[Any]]] = [[] for _ in range(count)]
    for row in rows:
        by_place[row[0]].append(row)
    return by_place
