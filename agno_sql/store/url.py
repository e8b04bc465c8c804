"""Database URLs, as people write them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from agno_sql.errors import InvalidDatabaseURLError

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_EXAMPLES: Final = "sqlite:///chat.db or postgresql://user:password@host/database"


def normalize_url(url: str | URL) -> URL:
    """Return *url* with the asynchronous driver that serves it.

    ``postgres://`` and ``postgresql://`` mean asyncpg, ``sqlite://`` means aiosqlite, and libpq's
    ``sslmode`` becomes asyncpg's ``ssl``.

    Raises:
        InvalidDatabaseURLError: Not a URL, or of another driver; the password is never shown.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError, TypeError, AttributeError):
        # Without its text: what can't be parsed may hold a password anywhere.
        raise InvalidDatabaseURLError(f"not a database URL; write {_EXAMPLES}") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise InvalidDatabaseURLError(
            f"{parsed.drivername}:// is not supported; write {_suggestion(parsed.drivername)}"
        )
    parsed = parsed.set(drivername=driver)
    if driver == "postgresql+asyncpg" and (mode := parsed.query.get("sslmode")):
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed


def shown_url(url: URL) -> str:
    """Return *url* as people write it, without its password and its options, which may be secret."""
    plain = url.set(drivername=url.get_backend_name(), query={})
    return plain.render_as_string(hide_password=True)


def _suggestion(drivername: str) -> str:
    for dialect in ("sqlite", "postgresql"):
        if drivername.startswith((f"{dialect}+", dialect[:8])):
            return f"{_DRIVERS[dialect]}://…"
    return _EXAMPLES
