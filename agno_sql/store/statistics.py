"""What happened on each day, and how much room it takes: each a scan of whole tables.

Neither messages nor runs have an index by time, which every write would pay for.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Date,
    RowMapping,
    String,
    case,
    cast,
    func,
    literal_column,
    select,
    text,
)

from agno_sql.oversight import Day
from agno_sql.store.oversight import ALL
from agno_sql.store.run_rows import decoding, run_record
from agno_sql.store.tables import messages, metadata, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.runs import RunRecord


async def days(conn: AsyncConnection, asked: Sequence[date]) -> list[Day]:
    """Return what is kept of each of the days *asked*, which follow one another.

    Raises:
        CorruptRecordError: A message or a run is of no day.
    """
    begin = datetime.combine(asked[0], time(), UTC)
    with decoding("the time of a message or a run"):
        talked = {_day(row["day"]): row for row in await _messages_by_day(conn, begin)}
        worked = {_day(row["day"]): row for row in await _runs_by_day(conn, begin)}
    return [_told(day, talked.get(day), worked.get(day)) for day in asked]


async def newest_failures(conn: AsyncConnection, *, limit: int) -> list[RunRecord]:
    """Return the newest runs that failed, the newest first."""
    r = runs.c
    query = (
        select(runs)
        .where(r.status == "failed")
        .order_by(r.started_at.desc(), r.user_id, r.session_id, r.run_id)
        .limit(limit)
    )
    with decoding("a run that failed"):
        return [run_record(row) for row in await conn.execute(query.execution_options(**ALL))]


async def sizes(conn: AsyncConnection) -> dict[str, int]:
    """Return how many bytes each table takes; of SQLite's file what is used and what is free."""
    if conn.dialect.name != "sqlite":
        query = select(
            *(func.pg_total_relation_size(table).label(table) for table in metadata.tables)
        )
        return dict((await conn.execute(query)).mappings().one())
    pragmas = ("page_size", "page_count", "freelist_count")
    size, pages, free = [
        (await conn.execute(text(f"PRAGMA {pragma}"))).scalar_one() for pragma in pragmas
    ]
    return {"used": (pages - free) * size, "free": free * size}


async def _messages_by_day(conn: AsyncConnection, begin: datetime) -> Sequence[RowMapping]:
    c = messages.c
    day = _day_of(conn, c.created_at).label("day")
    # By user first: to count the distinct users of a day PostgreSQL would sort all messages.
    by_user = (
        select(day, c.user_id, func.count().label("messages"))
        .where(c.created_at >= begin)
        .group_by(day, c.user_id)
        .subquery()
    )
    query = select(
        by_user.c.day, func.count().label("users"), func.sum(by_user.c.messages).label("messages")
    ).group_by(by_user.c.day)
    return (await conn.execute(query.execution_options(**ALL))).mappings().all()


async def _runs_by_day(conn: AsyncConnection, begin: datetime) -> Sequence[RowMapping]:
    c = runs.c
    day = _day_of(conn, c.started_at).label("day")
    query = (
        select(
            day,
            func.count().label("runs"),
            func.sum(case((c.status == "failed", 1), else_=0)).label("failed_runs"),
            func.sum(c.input_tokens).label("input_tokens"),
            func.sum(c.output_tokens).label("output_tokens"),
        )
        .where(c.started_at >= begin)
        .group_by(day)
    )
    return (await conn.execute(query.execution_options(**ALL))).mappings().all()


def _day_of(conn: AsyncConnection, column: ColumnElement[datetime]) -> ColumnElement[Any]:
    if conn.dialect.name == "sqlite":
        return func.substr(column, literal_column("1"), literal_column("10"), type_=String())
    return cast(func.timezone(literal_column("'UTC'"), column), Date)


def _day(stored: date | str) -> date:
    return date.fromisoformat(stored) if isinstance(stored, str) else stored


def _told(day: date, talked: RowMapping | None, worked: RowMapping | None) -> Day:
    # PostgreSQL's sums are decimals.
    counts = {
        name: int(number)
        for row in (talked, worked)
        if row is not None
        for name, number in row.items()
        if name != "day"
    }
    return Day(day=day, **counts)
