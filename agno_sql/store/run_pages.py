"""Which runs a user has, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, func, literal, select, tuple_

from agno_sql.ids import shown
from agno_sql.store.run_rows import decoding, run_record
from agno_sql.store.tables import runs
from agno_sql.store.text import encode
from agno_sql.store.types import Id, RunId, UTCDateTime

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.runs import RunFilter, RunPlace, RunRecord

_changed_at: Final = func.coalesce(runs.c.finished_at, runs.c.started_at, type_=UTCDateTime)


async def page(
    conn: AsyncConnection, user_id: str, wanted: RunFilter, *, limit: int, after: RunPlace | None
) -> list[RunRecord]:
    """Return the user's *wanted* runs behind *after*, the latest change first.

    Raises:
        CorruptRecordError: A row was not written by this library; names it.
    """
    query = select(runs).where(runs.c.user_id == user_id, *_is(wanted))
    if after is not None:
        query = query.where(
            tuple_(_changed_at, runs.c.session_id, runs.c.run_id)
            < tuple_(
                literal(after.changed_at, UTCDateTime),
                literal(after.session_id, Id),
                literal(after.run_id, RunId),
            )
        )
    query = query.order_by(_changed_at.desc(), runs.c.session_id.desc(), runs.c.run_id.desc())
    with decoding(f"a run of user {shown(user_id)}"):
        return [_record(row) for row in await conn.execute(query.limit(limit))]


async def count(conn: AsyncConnection, user_id: str, wanted: RunFilter) -> int:
    """Return how many *wanted* runs the user has."""
    found = await conn.scalar(
        select(func.count()).select_from(runs).where(runs.c.user_id == user_id, *_is(wanted))
    )
    return found or 0


def _is(wanted: RunFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.agent_id is not None:
        conditions.append(runs.c.agent_id == encode(wanted.agent_id))
    if wanted.session_id is not None:
        conditions.append(runs.c.session_id == wanted.session_id)
    if wanted.status is not None:
        conditions.append(runs.c.status == wanted.status)
    if wanted.changed_since is not None:
        conditions.append(_changed_at >= wanted.changed_since)
    return conditions


def _record(row: Row[*tuple[Any, ...]]) -> RunRecord:
    user, session = shown(row.user_id), shown(row.session_id)
    with decoding(f"run {row.run_id} of user {user}, session {session}"):
        return run_record(row)
