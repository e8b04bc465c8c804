"""The append: one transaction that reserves the numbers, inserts and prunes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, insert
from sqlalchemy.dialects import postgresql, sqlite

from agno_sql.store.prune import prune
from agno_sql.store.rows import message_row
from agno_sql.store.tables import conversations, messages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Row
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
    first = conversation.last_seq - len(new) + 1
    stored = [
        replace(message, seq=seq, created_at=message.created_at or at)
        for seq, message in enumerate(new, start=first)
    ]
    user_id, session_id = key
    await conn.execute(
        insert(messages),
        [
            {"user_id": user_id, "session_id": session_id, "seq": m.seq, **message_row(m)}
            for m in stored
        ],
    )
    if capacity is not None and conversation.message_count > capacity:
        await prune(conn, key, conversation, newest=stored, capacity=capacity)
    return stored


async def _reserve(
    conn: AsyncConnection, key: tuple[str, str], count: int, at: datetime
) -> Row[Any]:
    """Raise last_seq by *count*; return first_seq, last_seq and message_count afterwards."""
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    new = dialect.insert(conversations).values(
        user_id=key[0],
        session_id=key[1],
        first_seq=1,
        last_seq=count,
        message_count=count,
        created_at=at,
        last_active_at=at,
    )
    upsert = new.on_conflict_do_update(
        index_elements=[conversations.c.user_id, conversations.c.session_id],
        set_={
            "last_seq": conversations.c.last_seq + new.excluded.last_seq,
            "message_count": conversations.c.message_count + new.excluded.message_count,
            # Clocks differ, and a writer may have waited: the latest activity decides what a
            # clean-up deletes, so it never goes back.
            "last_active_at": case(
                (
                    new.excluded.last_active_at > conversations.c.last_active_at,
                    new.excluded.last_active_at,
                ),
                else_=conversations.c.last_active_at,
            ),
        },
    ).returning(conversations.c.first_seq, conversations.c.last_seq, conversations.c.message_count)
    return (await conn.execute(upsert)).one()
