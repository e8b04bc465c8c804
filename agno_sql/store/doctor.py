"""What is broken in a database, and where.

Each comparison is one statement, which sees one moment, so what others write meanwhile is no
finding. Tables are read in pages, so what is held in memory stays small.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Select, and_, case, exists, func, literal, select, tuple_

from agno_sql.errors import (
    CorruptRecordError,
    SchemaOutOfDateError,
    StoreError,
    StoreUnavailableError,
)
from agno_sql.ids import shown
from agno_sql.runs import RunKey
from agno_sql.store.rows import row_message
from agno_sql.store.run_rows import is_run, run_record
from agno_sql.store.schema import check_schema
from agno_sql.store.tables import conversations, messages, runs
from agno_sql.store.types import as_stored

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnCollection, ColumnElement, Row, Subquery, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.message import Message, ToolCall
    from agno_sql.store.database import Database

STALE_AFTER: Final = timedelta(minutes=5)
"""How long a run may be interrupted: whoever recovers does so within a lease or two."""

_EXAMINE: Final = {"cross_tenant": "the doctor examines the rows of all users"}
# What reading may fail with for a row's sake: drivers raise more than their own errors.
_UNREADABLE: Final = (StoreError, ValueError, TypeError, OverflowError)
_CONVERSATION: Final = ("user_id", "session_id")

_Row: TypeAlias = "Row[*tuple[Any, ...]]"
_Query: TypeAlias = "Callable[[Subquery], Select[*tuple[Any, ...]]]"
_Columns: TypeAlias = "ColumnCollection[str, Any]"
# The calls that a conversation's messages have left without a result so far, by run and step.
_Calls: TypeAlias = "dict[tuple[str, int], tuple[int, ToolCall]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that no version of this library leaves behind, or that waits for somebody.

    ``check`` is a stable word; ``detail`` explains it in a line that is safe to show.
    """

    check: str
    user_id: str | None = None
    session_id: str | None = None
    seq: int | None = None
    run_id: str | None = None
    detail: str


async def examine(database: Database, *, now: datetime) -> AsyncGenerator[Finding, None]:
    """Yield what is broken: of conversations, then of runs, then of messages, by their keys.

    Safe while others write; changes nothing. With tables of another version that is the only
    finding.

    Raises:
        StoreError: The database refused or could not be reached.
    """
    try:
        await database.read(check_schema)
    except SchemaOutOfDateError as error:
        yield Finding(check="schema", detail=str(error))
        return
    async for finding in _of_conversations(database, now):
        yield finding
    async for finding in _of_runs(database):
        yield finding
    async for finding in _of_messages(database):
        yield finding


async def _of_conversations(database: Database, now: datetime) -> AsyncIterator[Finding]:
    # One statement counts all messages of a page's conversations.
    async for row in _rows(database, conversations, _conversations, at_most=1000):
        if isinstance(row, Finding):
            yield row
            continue
        for check, seq, detail in _count_faults(row):
            yield _at(row, check, detail, seq=seq)
        if (missing := row.last_seq - row.first_seq + 1 - row.in_range) > 0:
            first = await database.read(partial(_first_missing, row=row))
            told = f"of the messages {row.first_seq} to {row.last_seq}, {missing} missing"
            yield _at(row, "seq_gap", f"{told}, the first is {first}", seq=first)
        for check, detail in _lease_faults(row, now):
            yield _at(row, check, detail, run_id=row.run_id)


def _conversations(page: Subquery) -> Select[*tuple[Any, ...]]:
    c, m = page.c, messages.c
    run = [
        runs.c.status.label("run_status"),
        runs.c.agent_id.label("run_agent_id"),
        runs.c.first_seq.label("run_row_first_seq"),
    ]
    is_in_range = m.seq.between(c.first_seq, c.last_seq)
    is_left_over = and_(m.seq < c.first_seq, m.role != "system")
    return (
        select(
            *c,
            *run,
            func.count(m.seq).label("stored"),
            func.count(case((is_in_range, 1))).label("in_range"),
            func.min(case((is_left_over, m.seq))).label("left_over"),
            func.max(m.seq).label("highest"),
        )
        .select_from(
            page.outerjoin(messages, _same(c, m, *_CONVERSATION)).outerjoin(
                runs, _same(c, runs.c, *_CONVERSATION, "run_id")
            )
        )
        .group_by(*c, *run)
        .order_by(c.user_id, c.session_id)
    )


def _count_faults(row: _Row) -> Iterator[tuple[str, int | None, str]]:
    if row.message_count != row.stored:
        told = f"message_count is {row.message_count}, and there are {row.stored}"
        yield "message_count", None, told
    if row.left_over is not None:
        told = f"not a system message, though the kept ones begin with {row.first_seq}"
        yield "below_first_seq", row.left_over, told
    if row.highest is not None and row.highest > row.last_seq:
        told = f"last_seq is {row.last_seq}: the next message could not be stored"
        yield "above_last_seq", row.highest, told


async def _first_missing(conn: AsyncConnection, row: _Row) -> int:
    number = func.row_number().over(order_by=messages.c.seq)
    numbered = (
        select(messages.c.seq, (number + (row.first_seq - 1)).label("expected"))
        .where(
            messages.c.user_id == row.user_id,
            messages.c.session_id == row.session_id,
            messages.c.seq.between(row.first_seq, row.last_seq),
        )
        .subquery()
    )
    first = await conn.scalar(
        select(func.min(numbered.c.expected)).where(numbered.c.seq != numbered.c.expected)
    )
    return int(row.first_seq + row.in_range if first is None else first)


def _lease_faults(row: _Row, now: datetime) -> Iterator[tuple[str, str]]:
    held = {name: getattr(row, name) for name in ("run_id", "run_first_seq", "lease_expires_at")}
    # The token of a run that has ended stays.
    expected = held if row.run_id is None else held | {"lease_token": row.lease_token}
    unset = [name for name, value in expected.items() if value is None]
    if unset and len(unset) < len(expected):
        yield "lease", f"of the columns of a lease, {', '.join(unset)} not set"
    if row.run_id is None:
        return
    if row.run_status != "running":
        of_the_run = "has no row" if row.run_status is None else f"is {shown(row.run_status)}"
        yield "held_run", f"the conversation is held for this run, which {of_the_run}"
        return
    if row.run_first_seq is not None and row.run_first_seq != row.run_row_first_seq:
        told = f"run_first_seq is {row.run_first_seq}, the run begins with {row.run_row_first_seq}"
        yield "run_range", told
    if row.lease_expires_at is not None and row.lease_expires_at <= now - STALE_AFTER:
        told = (
            f"interrupted since {row.lease_expires_at:%Y-%m-%d %H:%M:%S} UTC: call recover() of "
            f"agent {shown(row.run_agent_id)}; a new run in the conversation closes it as failed"
        )
        yield "stale_run", told


async def _of_runs(database: Database) -> AsyncIterator[Finding]:
    async for row in _rows(database, runs, _runs):
        if isinstance(row, Finding):
            yield row
            continue
        for check, detail in _run_faults(row):
            yield _at(row, check, detail, run_id=row.run_id)


def _runs(page: Subquery) -> Select[*tuple[Any, ...]]:
    c = conversations.c
    return (
        select(
            *page.c,
            c.user_id.is_(None).label("is_orphan"),
            c.run_id.label("held_run_id"),
            c.first_seq.label("first_kept"),
            c.last_seq.label("last_kept"),
        )
        .select_from(page.outerjoin(conversations, _same(page.c, c, *_CONVERSATION)))
        .order_by(page.c.user_id, page.c.session_id, page.c.run_id)
    )


def _run_faults(row: _Row) -> Iterator[tuple[str, str]]:
    try:
        run_record(row)
    except (ValueError, TypeError) as error:
        yield "undecodable", f"the run can't be decoded: {error}"
    if row.is_orphan:
        yield "orphan", "the run's conversation has no row"
        return
    if row.status == "running" and row.held_run_id != row.run_id:
        yield "unheld_run", "the run is running, but its conversation is not held for it"
    if not row.first_kept <= row.last_seq <= row.last_kept:
        kept = f"{row.first_kept} to {row.last_kept}"
        yield "run_range", f"the run ends with message {row.last_seq}, kept are {kept}"


async def _of_messages(database: Database) -> AsyncIterator[Finding]:
    conversation: tuple[str, str] | None = None
    calls: _Calls = {}
    async for row in _rows(database, messages, _messages):
        if isinstance(row, Finding):
            yield row
            continue
        if (key := (row.user_id, row.session_id)) != conversation:
            async for finding in _torn(database, conversation, calls):
                yield finding
            conversation, calls = key, {}
            if row.is_orphan:
                told = "the conversation of this message, and of all others there, has no row"
                yield _at(row, "orphan", told, seq=row.seq)
        try:
            _note(calls, row_message(row[1:-1], key))
        except CorruptRecordError as error:
            yield _at(row, "undecodable", str(error), seq=row.seq)
    async for finding in _torn(database, conversation, calls):
        yield finding


def _messages(page: Subquery) -> Select[*tuple[Any, ...]]:
    c = conversations.c
    return (
        select(*map(as_stored, page.c), c.user_id.is_(None).label("is_orphan"))
        .select_from(page.outerjoin(conversations, _same(page.c, c, *_CONVERSATION)))
        .order_by(page.c.user_id, page.c.session_id, page.c.seq)
    )


def _note(calls: _Calls, message: Message) -> None:
    """Add the calls of *message* to *calls*, or remove the one that it is the result of."""
    if message.run_id is None or message.run_step is None:
        return  # added by hand, where anything goes
    assert message.seq is not None  # noqa: S101  (it was read)
    for step, call in enumerate(message.tool_calls, start=message.run_step + 1):
        calls[message.run_id, step] = (message.seq, call)
    if message.role == "tool":
        calls.pop((message.run_id, message.run_step), None)


async def _torn(
    database: Database, conversation: tuple[str, str] | None, calls: _Calls
) -> AsyncIterator[Finding]:
    for (run_id, step), (seq, call) in calls.items():
        assert conversation is not None  # noqa: S101  (without one there are no calls)
        key = RunKey(*conversation, run_id)
        # Pages were read at different moments: the run may have ended, or be gone, meanwhile.
        if await database.read(partial(_is_torn, key=key, step=step, seq=seq)):
            told = f"the run has ended, and its call of {shown(call.name)} has no result"
            yield Finding(check="torn_exchange", **key._asdict(), seq=seq, detail=told)


async def _is_torn(conn: AsyncConnection, key: RunKey, *, step: int, seq: int) -> bool:
    m = messages.alias("m").c
    # Beyond the run's end there may be copies of its messages, which a user added.
    is_of_run = and_(
        _same(m, runs.c, *_CONVERSATION, "run_id"),
        m.seq.between(runs.c.first_seq, runs.c.last_seq),
    )
    torn = await conn.scalar(
        select(literal(1)).where(
            is_run(key),
            runs.c.status != "running",
            exists().where(is_of_run, m.seq == seq),
            ~exists().where(is_of_run, m.run_step == step, m.role == "tool"),
        )
    )
    return torn is not None


def _at(
    row: _Row, check: str, detail: str, *, seq: int | None = None, run_id: str | None = None
) -> Finding:
    """Return a finding in the conversation of *row*."""
    return Finding(
        check=check,
        user_id=row.user_id,
        session_id=row.session_id,
        seq=seq,
        run_id=run_id,
        detail=detail,
    )


async def _rows(
    database: Database, table: Table, query: _Query, *, at_most: int = 5000
) -> AsyncIterator[_Row | Finding]:
    """Yield the rows of *query* for pages of *table*, in the order of its key.

    A page that can't be read is read again in smaller ones, down to the row that is the reason.
    """
    after: tuple[Any, ...] | None = None
    size = at_most
    while True:
        rows, size = await _page(database, table, query, after=after, size=size)
        for row in rows:
            yield row
        if len(rows) < size:
            return
        after = tuple(getattr(rows[-1], column.name) for column in table.primary_key)
        size = min(at_most, size * 10)


async def _page(
    database: Database, table: Table, query: _Query, *, after: tuple[Any, ...] | None, size: int
) -> tuple[Sequence[_Row] | list[Finding], int]:
    """Return *query* for a page of *table*, or the finding of a row that can't be read.

    Returns the size of the page too: it is smaller where such a row was on a larger one.
    """
    key = list(table.primary_key)
    page = select(table).order_by(*key).limit(size)
    if after is not None:
        last = [literal(value, column.type) for value, column in zip(after, key, strict=True)]
        page = page.where(tuple_(*key) > tuple_(*last))
    try:
        return await _read(database, query(page.subquery())), size
    except _UNREADABLE as error:
        if size > 1 and not isinstance(error, StoreUnavailableError):
            return await _page(database, table, query, after=after, size=max(1, size // 10))
        detail = f"the row can't be read ({type(error).__name__})"
        # Raises the same if it was no row's fault.
        keys = await _read(database, page.with_only_columns(*key))
        found = [Finding(check="undecodable", **row._asdict(), detail=detail) for row in keys]
        return found, size


async def _read(database: Database, query: Select[*tuple[Any, ...]]) -> Sequence[_Row]:
    async def read(conn: AsyncConnection) -> Sequence[_Row]:
        rows = await conn.execute(query.execution_options(**_EXAMINE))
        return rows.all()

    return await database.read(read)


def _same(one: _Columns, other: _Columns, *names: str) -> ColumnElement[bool]:
    return and_(*(one[name] == other[name] for name in names))
