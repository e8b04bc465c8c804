"""Runs to rows and back, and reading them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, literal, select, tuple_

from agno_sql.errors import CorruptRecordError
from agno_sql.ids import shown
from agno_sql.message import Usage
from agno_sql.runs import RunKey, RunRecord, StoredRun
from agno_sql.store.reads import run_messages
from agno_sql.store.tables import conversations, runs
from agno_sql.store.text import decode, encode
from agno_sql.store.types import Id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.runs import Ending, NewRun

_RECOVER: Final = {"cross_tenant": "recovery looks for the interrupted runs of all users"}


async def get(conn: AsyncConnection, key: RunKey) -> RunRecord | None:
    """Return what is known of the run, ``None`` for one that is not known.

    Raises:
        CorruptRecordError: The row was not written by this library; names it.
    """
    user, session = shown(key.user_id), shown(key.session_id)
    with decoding(f"run {key.run_id} of user {user}, session {session}"):
        row = (await conn.execute(select(runs).where(is_run(key)))).one_or_none()
        return None if row is None else run_record(row)


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Raise CorruptRecordError for *what* can't be decoded within."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise CorruptRecordError(f"{what} can't be decoded: {error}") from error


async def find(conn: AsyncConnection, key: RunKey) -> StoredRun | None:
    """Return the run with its kept messages, ``None`` for one that is not known."""
    record = await get(conn, key)
    if record is None:
        return None
    messages = await run_messages(conn, key)
    # One that has completed without an answer was cleared or pruned between the two.
    is_gone = record.status == "completed" and not messages
    return None if is_gone else StoredRun(record, messages)


async def interrupted(
    conn: AsyncConnection, agent_id: str, *, at: datetime, limit: int, after: RunKey | None
) -> list[RunKey]:
    """Return a page of the agent's running runs whose lease has expired, in the order of keys."""
    c = conversations.c
    same_run = and_(
        runs.c.user_id == c.user_id, runs.c.session_id == c.session_id, runs.c.run_id == c.run_id
    )
    query = (
        select(c.user_id, c.session_id, c.run_id)
        .join(runs, same_run)
        .where(c.run_id.is_not(None), c.lease_expires_at <= at, runs.c.agent_id == encode(agent_id))
    )
    if after is not None:
        query = query.where(
            tuple_(c.user_id, c.session_id)
            > tuple_(literal(after.user_id, Id), literal(after.session_id, Id))
        )
    rows = await conn.execute(
        query.order_by(c.user_id, c.session_id).limit(limit).execution_options(**_RECOVER)
    )
    return [RunKey(*row) for row in rows]


def is_run(key: RunKey) -> ColumnElement[bool]:
    """Return the condition for the row of one run."""
    return and_(
        runs.c.user_id == key.user_id,
        runs.c.session_id == key.session_id,
        runs.c.run_id == key.run_id,
    )


def new_run_row(key: RunKey, new: NewRun, *, seq: int, at: datetime) -> dict[str, Any]:
    """Return the row of a run whose first message has *seq*."""
    return {
        **key._asdict(),
        "agent_id": encode(new.agent_id),
        "status": "running",
        "attempt": 1,
        "input_sha256": new.input_sha256,
        "first_seq": seq,
        "last_seq": seq,
        "model": encode(new.model),
        "started_at": at,
        **usage_row(Usage()),
    }


def ending_row(ending: Ending) -> dict[str, Any]:
    """Return what an update of a run sets to tell how it ended."""
    return {
        "status": ending.status,
        "error_type": encode(ending.error_type),
        "error_message": encode(ending.error_message),
    }


def usage_row(usage: Usage) -> dict[str, Any]:
    """Return the columns of a run that tell what it cost."""
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


def run_record(row: Row[*tuple[Any, ...]]) -> RunRecord:
    """Return the run that *row* holds."""
    return RunRecord(
        user_id=row.user_id,
        session_id=row.session_id,
        run_id=row.run_id,
        agent_id=decode(row.agent_id),
        status=row.status,
        attempt=row.attempt,
        model=decode(row.model),
        usage=Usage(row.input_tokens, row.output_tokens),
        input_sha256=row.input_sha256,
        started_at=row.started_at,
        finished_at=row.finished_at,
        cancel_requested_at=row.cancel_requested_at,
        error_type=None if row.error_type is None else decode(row.error_type),
        error_message=None if row.error_message is None else decode(row.error_message),
    )
