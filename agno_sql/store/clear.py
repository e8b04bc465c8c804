"""Emptying and deleting conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, delete, select, tuple_, update

from agno_sql.store.fence import RELEASED
from agno_sql.store.tables import conversations, messages, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

_CLEAR_ALL: Final = {"cross_tenant": "clear_all deletes everything"}


async def clear(conn: AsyncConnection, key: tuple[str, str]) -> None:
    """Delete the messages of one conversation and keep its row, so that seq goes on."""
    # The row first: it is the lock that every writer of the conversation takes. Without a row
    # there is nothing to clear, and what an append stores meanwhile comes after this.
    locked = await conn.execute(
        update(conversations)
        .where(conversations.c.user_id == key[0], conversations.c.session_id == key[1])
        .values(
            message_count=0,
            first_seq=conversations.c.last_seq + 1,
            # A run that is at work has lost its lease: what it writes next is refused.
            **RELEASED,
            lease_token=None,
        )
    )
    if locked.rowcount == 0:
        return
    await conn.execute(delete(runs).where(runs.c.user_id == key[0], runs.c.session_id == key[1]))
    await conn.execute(
        delete(messages).where(messages.c.user_id == key[0], messages.c.session_id == key[1])
    )


async def erase(conn: AsyncConnection, user_id: str) -> int:
    """Delete everything of one user; return how many messages that were."""
    deleted = await delete_conversations(conn, conversations.c.user_id == user_id)
    return sum(conversation.message_count for conversation in deleted)


async def clear_all(conn: AsyncConnection) -> None:
    """Delete everything of every user."""
    if conn.dialect.name == "sqlite":
        await conn.execute(delete(runs).execution_options(**_CLEAR_ALL))
        await conn.execute(delete(messages).execution_options(**_CLEAR_ALL))
    await conn.execute(delete(conversations).execution_options(**_CLEAR_ALL))


async def delete_conversations(
    conn: AsyncConnection, where: ColumnElement[bool]
) -> Sequence[Row[Any, Any]]:
    """Delete the conversations that match *where*; return user_id and message_count of each.

    Messages and runs go by the foreign key's cascade, in the same statement: a conversation that
    begins meanwhile keeps its own. Only SQLite may have foreign keys off, on an engine that
    isn't ours; there the transaction holds the write lock and nothing begins meanwhile.
    """
    if conn.dialect.name == "sqlite":
        keys = select(conversations.c.user_id, conversations.c.session_id).where(where)
        for table in (runs, messages):
            await conn.execute(
                delete(table).where(tuple_(table.c.user_id, table.c.session_id).in_(keys))
            )
    deleted = await conn.execute(
        delete(conversations)
        .where(where)
        .returning(conversations.c.user_id, conversations.c.message_count)
    )
    return deleted.all()
