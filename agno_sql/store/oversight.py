"""How much is kept, of whom: what a dry run counts, and a session's runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import CTE, ColumnElement, Select, func, literal, select, tuple_

from agno_sql.ids import shown
from agno_sql.oversight import Kept, SessionRun
from agno_sql.store.run_rows import decoding, run_record
from agno_sql.store.tables import conversations, runs
from agno_sql.store.types import RunId

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

ALL: Final = {"cross_tenant": "operators ask how much is kept of all users"}


async def kept_of_user(conn: AsyncConnection, user_id: str) -> Kept:
    """Return how much is kept of one user."""
    return await _kept(
        conn,
        conversations.c.user_id == user_id,
        select(func.count()).where(runs.c.user_id == user_id),
    )


async def kept_of_session(conn: AsyncConnection, key: tuple[str, str]) -> Kept:
    """Return how much is kept of one session."""
    c, r = conversations.c, runs.c
    return await _kept(
        conn,
        (c.user_id == key[0]) & (c.session_id == key[1]),
        select(func.count()).where(r.user_id == key[0], r.session_id == key[1]),
    )


async def kept_of_inactive(conn: AsyncConnection, until: datetime) -> Kept:
    """Return how much is kept of the users without activity after *until*."""
    users = _by_user().having(func.max(conversations.c.last_active_at) <= until).cte("inactive")
    # Not a count for each user, which PostgreSQL does far slower where they are many.
    theirs = select(func.count()).where(runs.c.user_id.in_(select(users.c.user_id)))
    return await _kept_of(conn, users, theirs)


async def kept_of_all(conn: AsyncConnection) -> Kept:
    """Return how much is kept in all."""
    return await _kept_of(conn, _by_user().cte("everybody"), select(func.count()).select_from(runs))


async def session_runs(
    conn: AsyncConnection, key: tuple[str, str], *, limit: int, after: tuple[int, str] | None
) -> list[SessionRun]:
    """Return a page of a session's runs, the newest first; *after* is a last_seq and a run_id."""
    r = runs.c
    query = select(runs).where(r.user_id == key[0], r.session_id == key[1])
    if after is not None:
        query = query.where(
            r.last_seq <= after[0],
            tuple_(r.last_seq, r.run_id) < tuple_(literal(after[0]), literal(after[1], RunId)),
        )
    query = query.order_by(r.last_seq.desc(), r.run_id.desc()).limit(limit)
    with decoding(f"a run of user {shown(key[0])}, session {shown(key[1])}"):
        return [
            SessionRun(record=run_record(row), first_seq=row.first_seq, last_seq=row.last_seq)
            for row in await conn.execute(query)
        ]


async def _kept(
    conn: AsyncConnection,
    where: ColumnElement[bool],
    run_count: Select[*tuple[Any, ...]],
) -> Kept:
    row = (
        await conn.execute(
            select(
                func.count(),
                func.coalesce(func.sum(conversations.c.message_count), 0),
                run_count.scalar_subquery(),
            ).where(where)
        )
    ).one()
    return Kept(users=min(row[0], 1), sessions=row[0], messages=int(row[1]), runs=row[2])


def _by_user() -> Select[*tuple[Any, ...]]:
    # One pass over the conversations, of which there are far fewer than messages and runs.
    c = conversations.c
    return select(
        c.user_id, func.count().label("sessions"), func.sum(c.message_count).label("messages")
    ).group_by(c.user_id)


async def _kept_of(conn: AsyncConnection, users: CTE, run_count: Select[*tuple[Any, ...]]) -> Kept:
    row = (
        await conn.execute(
            select(
                func.count(),
                func.coalesce(func.sum(users.c.sessions), 0),
                func.coalesce(func.sum(users.c.messages), 0),
                run_count.scalar_subquery(),
            ).execution_options(**ALL)
        )
    ).one()
    return Kept(users=row[0], sessions=int(row[1]), messages=int(row[2]), runs=row[3])
