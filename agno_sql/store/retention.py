"""Deleting users who have been away, without touching one who comes back meanwhile."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, func, select

from agno_sql.store.activity import inactive_users
from agno_sql.store.clear import delete_conversations
from agno_sql.store.tables import conversations, messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.message import UserActivity
    from agno_sql.store.database import Database

_LONGEST_PAUSE_S: Final = 1.0
_MOST_MESSAGES: Final = 200  # deleted by one transaction, unless a single user has more


async def delete_inactive(database: Database, until: datetime, *, batch: int) -> AsyncIterator[int]:
    """Delete the users without activity after *until*, at most *batch* a transaction.

    Yields how many users each transaction deleted. A user goes whole or not at all.
    """
    clock = asyncio.get_running_loop().time
    after, took = None, 0.0
    while page := await database.read(
        partial(inactive_users, until=until, limit=batch, after=after)
    ):
        after = page[-1]
        for users in _soon_deleted(page):
            # For as long as it took, others have the database to themselves.
            await asyncio.sleep(min(took, _LONGEST_PAUSE_S))
            await database.read(partial(_read_ahead, users=users), long=True)
            began = clock()
            deleted = await database.write(
                partial(_delete_users, users=users, until=until), long=True
            )
            took = clock() - began
            yield deleted
            await database.write_back()


def _soon_deleted(page: Sequence[UserActivity]) -> Iterator[set[str]]:
    """Yield the users of *page* in such numbers that no writer has to wait for long."""
    users: set[str] = set()
    messages = 0
    for user in page:
        if users and messages + user.messages > _MOST_MESSAGES:
            yield users
            users, messages = set(), 0
        users.add(user.user_id)
        messages += user.messages
    yield users


async def _read_ahead(conn: AsyncConnection, *, users: set[str]) -> None:
    """Have the messages of *users* in memory: to wait for the disk, nobody has to be locked out."""
    await conn.execute(select(func.count(messages.c.role)).where(messages.c.user_id.in_(users)))


async def _delete_users(conn: AsyncConnection, *, users: set[str], until: datetime) -> int:
    """Delete *users* but those who came back; return how many were deleted."""
    c = conversations.c
    while users:
        # Delete first, look afterwards: the deleted rows are locked then, and what is left shows
        # who came back. No lock has to be taken on several users beforehand.
        savepoint = await conn.begin_nested()
        deleted = await delete_conversations(
            conn, and_(c.user_id.in_(sorted(users)), c.last_active_at <= until)
        )
        left = await conn.scalars(select(c.user_id).distinct().where(c.user_id.in_(sorted(users))))
        came_back = set(left)
        if not came_back:
            return len({conversation.user_id for conversation in deleted})
        await savepoint.rollback()
        users = users - came_back
    return 0
