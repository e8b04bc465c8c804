"""The fence: what a run writes is refused unless its lease still holds the conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, literal, select, update

from agno_sql.store.append import reserved
from agno_sql.store.prune import COUNTERS
from agno_sql.store.tables import conversations
from agno_sql.store.types import UTCDateTime

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.runs import Lease

# The token stays: it tells the run's last holder that the end was stored.
RELEASED: Final = {"run_id": None, "run_first_seq": None, "lease_expires_at": None}


async def reserve(
    conn: AsyncConnection, lease: Lease, *, at: datetime, release: bool = False
) -> Row[Any] | None:
    """Lock the conversation and reserve a number if *lease* holds it; ``None`` if not.

    Extends the lease, or with *release* ends it. Never creates a conversation.
    """
    values = RELEASED if release else {"lease_expires_at": at + lease.duration}
    row = await conn.execute(
        update(conversations)
        .where(_held_by(lease))
        .values(reserved(1, literal(at, UTCDateTime)) | values)
        .returning(*COUNTERS)
    )
    return row.one_or_none()


async def park(conn: AsyncConnection, lease: Lease, *, at: datetime) -> None:
    """Let *lease* expire now, if it still holds the conversation."""
    await conn.execute(update(conversations).where(_held_by(lease)).values(lease_expires_at=at))


async def locked(conn: AsyncConnection, key: tuple[str, str]) -> Row[*tuple[Any, ...]] | None:
    """Return what holds the conversation, locked until the transaction ends."""
    c = conversations.c
    # SQLite's transaction has locked everything already; SQLAlchemy leaves the clause out there.
    row = await conn.execute(
        select(c.run_id, c.lease_token, c.lease_expires_at).where(of(key)).with_for_update()
    )
    return row.one_or_none()


def _held_by(lease: Lease) -> ColumnElement[bool]:
    return and_(
        of(lease.key.conversation),
        conversations.c.run_id == lease.key.run_id,
        conversations.c.lease_token == lease.token,
    )


def of(key: tuple[str, str]) -> ColumnElement[bool]:
    """Return the condition for the row of one conversation."""
    return and_(conversations.c.user_id == key[0], conversations.c.session_id == key[1])
