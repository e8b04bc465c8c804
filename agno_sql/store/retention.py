"""Deleting users who have been away, without touching one who comes back meanwhile."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import and_, select

from agno_sql.store.activity import inactive_users
from agno_sql.store.clear import delete_conversations
from agno_sql.store.tables import conversations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.store.database import Database


async def delete_inactive(database: Database, until: datetime, *, batch: int) -> AsyncIterator[int]:
    """Delete the users without activity after *until*, *batch* users a transaction.

    Yields how many users each transaction deleted. A user goes whole or not at all.
    """
    after = None
    while page := await database.read(
        partial(inactive_users, until=until, limit=batch, after=after)
    ):
        after = page[-1]
        yield await _delete_users(database, {user.user_id for user in page}, until)


async def _delete_users(database: Database, candidates: set[str], until: datetime) -> int:
    """Delete *candidates* but those who came back; return how many were deleted."""
    try:
        return len(await database.write(lambda conn: _delete(conn, candidates, until)))
    except _CameBackError as error:
        return await _delete_users(database, candidates - error.users, until)


async def _delete(conn: AsyncConnection, users: set[str], until: datetime) -> set[str]:
    if not users:
        return set()
    # Delete first, look afterwards: the deleted rows are locked then, and what is left shows who
    # came back. No lock has to be taken on several users beforehand.
    c = conversations.c
    deleted = await delete_conversations(
        conn, and_(c.user_id.in_(sorted(users)), c.last_active_at <= until)
    )
    left = await conn.scalars(select(c.user_id).distinct().where(c.user_id.in_(sorted(users))))
    if back := set(left):
        raise _CameBackError(back)
    return {conversation.user_id for conversation in deleted}


class _CameBackError(Exception):
    """Rolls the transaction back: part of these users' conversations had been deleted."""

    def __init__(self, users: set[str]) -> None:
        super().__init__()
        self.users = users
