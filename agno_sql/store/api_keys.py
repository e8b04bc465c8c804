"""API keys: only a digest of their secret is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from agno_sql.api_key import ApiKey
from agno_sql.store.tables import api_keys
from agno_sql.store.text import decode, encode

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection


async def add(conn: AsyncConnection, key: ApiKey, secret_sha256: str) -> None:
    """Store a new key."""
    await conn.execute(
        insert(api_keys).values(
            key_id=key.id,
            name=encode(key.name),
            secret_sha256=secret_sha256,
            is_admin=key.is_admin,
            created_at=key.created_at,
        )
    )


async def find(conn: AsyncConnection, key_id: str) -> tuple[ApiKey, str] | None:
    """Return a key and the digest of its secret; ``None`` for one that is not known."""
    row = (await conn.execute(select(api_keys).where(api_keys.c.key_id == key_id))).one_or_none()
    return None if row is None else (api_key(row), row.secret_sha256)


async def every(conn: AsyncConnection) -> list[ApiKey]:
    """Return all keys, the oldest first."""
    rows = await conn.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id))
    return [api_key(row) for row in rows]


async def revoke(conn: AsyncConnection, key_id: str, *, at: datetime) -> bool:
    """Revoke a key; return whether there was one that was valid until now."""
    revoked = await conn.execute(
        update(api_keys)
        .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=at)
    )
    return revoked.rowcount == 1


def api_key(row: Row[*tuple[Any, ...]]) -> ApiKey:
    """Return the key that *row* holds."""
    return ApiKey(
        id=row.key_id,
        name=decode(row.name),
        is_admin=row.is_admin,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
