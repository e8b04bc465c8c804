"""Reading a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Select, and_, case, literal_column, select, union_all

from agno_sql.store.rows import MESSAGE_COLUMNS, row_message
from agno_sql.store.tables import conversations, messages, runs
from agno_sql.store.types import as_stored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.message import Message
    from agno_sql.runs import RunKey

# Not a parameter: a plan made for any value could not use the index of system messages.
_SYSTEM: Final[ColumnElement[str]] = literal_column("'system'")
_ENDLESS: Final = 2**63 - 1
_COLUMNS: Final = [
    literal_column("0").label("place"),  # as row_message takes it
    *(as_stored(messages.c[name]) for name in MESSAGE_COLUMNS),
]


async def newest_messages(
    conn: AsyncConnection, key: tuple[str, str], *, limit: int | None, before: int | None
) -> list[Message]:
    """Return the newest *limit* messages with a seq below *before*, oldest first."""
    rows = await conn.execute(_newest(_range(key, before), limit))
    return _oldest_first(rows, key)


async def oldest_messages(
    conn: AsyncConnection, key: tuple[str, str], *, limit: int, after: int
) -> list[Message]:
    """Return the oldest *limit* messages with a seq above *after*, oldest first."""
    rows = await conn.execute(
        select(*_COLUMNS)
        .where(*_range(key, None), messages.c.seq > after)
        .order_by(messages.c.seq)
        .limit(limit)
    )
    return [row_message(row, key) for row in rows]


async def window_messages(
    conn: AsyncConnection, key: tuple[str, str], *, limit: int | None, before: int | None
) -> list[Message]:
    """Return all system messages and the newest *limit* others below *before*, oldest first."""
    if limit is None:
        return await newest_messages(conn, key, limit=None, before=before)
    where = _range(key, before)
    others = _newest([*where, messages.c.role != _SYSTEM], limit).subquery()
    rows = await conn.execute(
        union_all(select(*_COLUMNS).where(*where, messages.c.role == _SYSTEM), select(*others.c))
    )
    return _oldest_first(rows, key)


async def run_messages(conn: AsyncConnection, key: RunKey) -> list[Message]:
    """Return the kept messages that the run stored, by step."""
    # Only what stands between its first and its last message is looked at.
    is_its_run = and_(
        runs.c.user_id == messages.c.user_id,
        runs.c.session_id == messages.c.session_id,
        runs.c.run_id == messages.c.run_id,
        messages.c.seq >= runs.c.first_seq,
        messages.c.seq <= case((runs.c.status == "running", _ENDLESS), else_=runs.c.last_seq),
    )
    rows = await conn.execute(
        select(*_COLUMNS)
        .join(runs, is_its_run)
        .where(
            *_range(key.conversation, None),
            messages.c.run_id == key.run_id,
            messages.c.run_step.is_not(None),
        )
        .order_by(messages.c.run_step, messages.c.seq)
    )
    by_step: dict[int | None, Message] = {}
    for row in rows:
        message = row_message(row, key.conversation)
        # The first of each step: somebody may have added copies of the run's messages.
        by_step.setdefault(message.run_step, message)
    return list(by_step.values())


async def message_count(conn: AsyncConnection, key: tuple[str, str]) -> int:
    """Return how many messages the conversation holds."""
    count = await conn.scalar(
        select(conversations.c.message_count).where(
            conversations.c.user_id == key[0], conversations.c.session_id == key[1]
        )
    )
    return count or 0


def _newest(where: list[ColumnElement[bool]], limit: int | None) -> Select[*tuple[Any, ...]]:
    return select(*_COLUMNS).where(*where).order_by(messages.c.seq.desc()).limit(limit)


def _range(key: tuple[str, str], before: int | None) -> list[ColumnElement[bool]]:
    where = [messages.c.user_id == key[0], messages.c.session_id == key[1]]
    return where if before is None else [*where, messages.c.seq < before]


def _oldest_first(rows: Iterable[Row[*tuple[Any, ...]]], key: tuple[str, str]) -> list[Message]:
    ordered = sorted(rows, key=lambda row: row.seq)
    return [row_message(row, key) for row in ordered]
