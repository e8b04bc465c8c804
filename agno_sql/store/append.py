"""The append: one transaction that reserves the numbers, inserts and prunes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, case, insert
from sqlalchemy.dialects import postgresql, sqlite

from agno_sql.message import numbered
from agno_sql.store.prune import COUNTERS, prune
from agno_sql.store.rows import MESSAGE_COLUMNS, message_row
from agno_sql.store.tables import conversations, messages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.message import Message


async def append(
    conn: AsyncConnection,
    key: tuple[str, str],
    new: Sequence[Message],
    *,
    at: datetime,
    capacity: int | None,
) -> list[Message]:
    """Store *new* (one at least) at the end of conversation *key*; return them with their seq.

    Runs in the caller's transaction. Afterwards the conversation is pruned to *capacity*.
    """
    # One statement both locks the conversation and reserves the numbers, so two writers cannot
    # get the same seq and a rollback leaves no gap.
    conversation = await _reserve(conn, key, len(new), at)
    stored = await insert_numbered(conn, key, new, last_seq=conversation.last_seq, at=at)
    await prune(conn, key, conversation, newest=stored, capacity=capacity)
    return stored


async def insert_numbered(
    conn: AsyncConnection,
    key: tuple[str, str],
    new: Sequence[Message],
    *,
    last_seq: int,
    at: datetime,
) -> list[Message]:
    """Store *new* under the numbers that were reserved for them, which end with *last_seq*."""
    stored = numbered(new, last_seq=last_seq, at=at)
    user_id, session_id = key
    await conn.execute(
        insert(messages),
        [
            {
                "user_id": user_id,
                "session_id": session_id,
                **dict(zip(MESSAGE_COLUMNS, (m.seq, *message_row(m, at)), strict=True)),
            }
            for m in stored
        ],
    )
    return stored


def new_conversation(key: tuple[str, str], count: int, at: datetime) -> dict[str, Any]:
    """Return the row of a conversation that begins with *count* messages."""
    return {
        "user_id": key[0],
        "session_id": key[1],
        "first_seq": 1,
        "last_seq": count,
        "message_count": count,
        "created_at": at,
        "last_active_at": at,
    }


def reserved(count: ColumnElement[int] | int, at: ColumnElement[datetime]) -> dict[str, Any]:
    """Return what an update sets to add *count* messages to a conversation."""
    c = conversations.c
    return {
        "last_seq": c.last_seq + count,
        "message_count": c.message_count + count,
        # Clocks differ, and a writer may have waited: the latest activity decides what a clean-up
        # deletes, so it never goes back.
        "last_active_at": case((at > c.last_active_at, at), else_=c.last_active_at),
    }


async def _reserve(
    conn: AsyncConnection, key: tuple[str, str], count: int, at: datetime
) -> Row[Any]:
    """Raise last_seq by *count*; return the conversation's row as it is afterwards."""
    new = upsert(conn, conversations).values(new_conversation(key, count, at))
    statement = new.on_conflict_do_update(
        index_elements=["user_id", "session_id"],
        set_=reserved(new.excluded.last_seq, new.excluded.last_active_at),
    )
    return (await conn.execute(statement.returning(*COUNTERS))).one()


def upsert(conn: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that can say what happens on a conflict."""
    return sqlite.insert(table) if conn.dialect.name == "sqlite" else postgresql.insert(table)
