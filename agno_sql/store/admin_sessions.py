"""Who is logged in to the operator's pages: only a digest of what the browser holds is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from agno_sql.store.api_keys import api_key
from agno_sql.store.tables import admin_sessions, api_keys

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.api_key import ApiKey


async def begin(
    conn: AsyncConnection, token_sha256: str, key_id: str, *, at: datetime, expires_at: datetime
) -> None:
    """Store a new session, and forget those that have expired."""
    await conn.execute(delete(admin_sessions).where(admin_sessions.c.expires_at <= at))
    await conn.execute(
        insert(admin_sessions).values(
            token_sha256=token_sha256, key_id=key_id, expires_at=expires_at
        )
    )


async def key_of(conn: AsyncConnection, token_sha256: str, *, at: datetime) -> ApiKey | None:
    """Return the key a session was begun with; ``None`` if it has ended or the key was revoked."""
    query = (
        select(api_keys)
        .join(admin_sessions, admin_sessions.c.key_id == api_keys.c.key_id)
        .where(
            admin_sessions.c.token_sha256 == token_sha256,
            admin_sessions.c.expires_at > at,
            api_keys.c.revoked_at.is_(None),
        )
    )
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else api_key(row)


async def end(conn: AsyncConnection, token_sha256: str) -> None:
    """Forget a session."""
    await conn.execute(delete(admin_sessions).where(admin_sessions.c.token_sha256 == token_sha256))
