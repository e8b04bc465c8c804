"""The API keys of a database: made, checked, listed and revoked."""

from __future__ import annotations

import hmac
import re
import secrets
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from agno_sql.api_key import ApiKey
from agno_sql.errors import InvalidOptionError
from agno_sql.store import admin_sessions, api_keys

if TYPE_CHECKING:
    from agno_sql.clock import Clock
    from agno_sql.store.database import Database

PREFIX: Final = "agno_sql"
SESSION_LASTS: Final = timedelta(hours=8)
"""How long an administrator stays logged in to the operator's pages."""

_KEY: Final = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})", re.ASCII)
_MOST_NAME_CHARACTERS: Final = 255
_NO_DIGEST: Final = "0" * 64


class ApiKeys:
    """The API keys that a database knows. Methods raise the same store errors as SQLMemory's."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, name: str, *, is_admin: bool = False) -> tuple[ApiKey, str]:
        """Make a key; return it with its text, which nobody can learn again.

        The text holds 256 random bits; only their digest is stored.
        """
        if not 1 <= len(name) <= _MOST_NAME_CHARACTERS or not name.isprintable():
            raise InvalidOptionError(
                f"name must have 1 to {_MOST_NAME_CHARACTERS} printable characters"
            )
        key = ApiKey(
            id=secrets.token_hex(6), name=name, is_admin=is_admin, created_at=self._clock.now()
        )
        secret = secrets.token_urlsafe(32)
        await self._database.write(lambda conn: api_keys.add(conn, key, _digest(secret)))
        return key, f"{PREFIX}_{key.id}_{secret}"

    async def check(self, text: str) -> ApiKey | None:
        """Return the key that *text* is; ``None`` for none, and for one that was revoked.

        Digests are compared in constant time, and of an unknown id too.
        """
        parts = _KEY.fullmatch(text)
        if parts is None:
            return None
        key_id, secret = parts.groups()
        found = await self._database.read(lambda conn: api_keys.find(conn, key_id))
        key, digest = found or (None, _NO_DIGEST)
        is_it = hmac.compare_digest(_digest(secret), digest)
        return key if is_it and key is not None and key.revoked_at is None else None

    async def every(self) -> list[ApiKey]:
        """Return all keys, the oldest first, revoked ones too."""
        return await self._database.read(api_keys.every)

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key from now on; return whether there was one that was valid until now."""
        return await self._database.write(
            lambda conn: api_keys.revoke(conn, key_id, at=self._clock.now())
        )

    async def begin_session(self, text: str) -> str | None:
        """Log an administrator in by the *text* of a key; return the token of the session.

        The token holds 256 random bits; only their digest is stored. ``None`` unless the key is
        valid and an administrator's.
        """
        key = await self.check(text)
        if key is None or not key.is_admin:
            return None
        token, now = secrets.token_urlsafe(32), self._clock.now()
        await self._database.write(
            lambda conn: admin_sessions.begin(
                conn, _digest(token), key.id, at=now, expires_at=now + SESSION_LASTS
            )
        )
        return token

    async def key_of_session(self, token: str) -> ApiKey | None:
        """Return the key that the session was begun with.

        ``None`` for a session that has ended, has expired, or whose key was revoked since.
        """
        return await self._database.read(
            lambda conn: admin_sessions.key_of(conn, _digest(token), at=self._clock.now())
        )

    async def end_session(self, token: str) -> None:
        """Log out."""
        await self._database.write(lambda conn: admin_sessions.end(conn, _digest(token)))


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
