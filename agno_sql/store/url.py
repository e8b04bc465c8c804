"""Database URLs, as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from agno_sql.errors import InvalidDatabaseURLError

if TYPE_CHECKING:
    from collections.abc import Callable

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_EXAMPLES: Final = "sqlite:///chat.db or postgresql://user:password@host/database"
_HIGHEST_PORT: Final = 65_535
# What may follow the "?" of a PostgreSQL URL: asyncpg's name for it, and its type.
_OPTIONS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "application_name": ("application_name", str),
    "command_timeout": ("command_timeout", float),
    "connect_timeout": ("timeout", float),
    "prepared_statement_cache_size": ("prepared_statement_cache_size", int),
    "ssl": ("ssl", str),
    "sslmode": ("ssl", str),
    "statement_cache_size": ("statement_cache_size", int),
}


def normalize_url(url: str | URL) -> URL:
    """Return *url* with the asynchronous driver that serves it.

    ``postgres://`` and ``postgresql://`` mean asyncpg, ``sqlite://`` means aiosqlite.

    Raises:
        InvalidDatabaseURLError: Not a URL, of another driver, or with an option that is not
            known; the password is never shown.
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
    _check_parts(parsed)
    return parsed


def driver_options(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return a normalized PostgreSQL *url* without its options, and those as asyncpg takes them."""
    taken: dict[str, Any] = {}
    for option, given in url.query.items():
        name, kind = _OPTIONS[option]
        try:
            taken[name] = kind(str(given))
        except ValueError:
            raise InvalidDatabaseURLError(
                f"the option {option} of the database URL must be a number"
            ) from None
    if (application := taken.pop("application_name", None)) is not None:
        taken["server_settings"] = {"application_name": application}
    return url.set(query={}), taken


def shown_url(url: URL) -> str:
    """Return *url* as people write it, without its password and its options, which may be secret."""
    plain = url.set(drivername=url.get_backend_name(), query={})
    return plain.render_as_string(hide_password=True)


def _check_parts(url: URL) -> None:
    if url.port is not None and url.port > _HIGHEST_PORT:
        raise InvalidDatabaseURLError(
            f"the port of the database URL must be at most {_HIGHEST_PORT}, got {url.port}"
        )
    if "\0" in (url.database or ""):
        raise InvalidDatabaseURLError("the database of the URL must not contain NUL")
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.host:
        raise InvalidDatabaseURLError(
            "an SQLite URL has three slashes before a relative path and four before an absolute "
            "one: sqlite:///chat.db"
        )
    known: set[str] = set() if is_sqlite else set(_OPTIONS)
    if unknown := set(url.query) - known:
        raise InvalidDatabaseURLError(
            f"the option {min(unknown)} of the database URL is not known here; remove it"
            + (f", or use one of {', '.join(sorted(known))}" if known else "")
        )
    if not is_sqlite:
        driver_options(url)


def _suggestion(drivername: str) -> str:
    for dialect in ("sqlite", "postgresql"):
        if drivername.startswith((f"{dialect}+", dialect[:8])):
            return f"{_DRIVERS[dialect]}://…"
    return _EXAMPLES
