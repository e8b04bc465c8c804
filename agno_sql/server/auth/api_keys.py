"""API keys: for back ends that are trusted to say which user they act for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agno_sql.server.auth.caller import Caller

if TYPE_CHECKING:
    from agno_sql.memory.api_keys import ApiKeys


class ApiKeyAuth:
    """Recognises the API keys of a database, ``SQLMemory.api_keys``.

    The database is asked at each request: a key that was revoked is refused from then on.
    """

    def __init__(self, keys: ApiKeys) -> None:
        self.keys = keys

    async def caller(self, token: str) -> Caller | None:
        """See Authenticator.caller."""
        key = await self.keys.check(token)
        return None if key is None else Caller(is_admin=key.is_admin)
