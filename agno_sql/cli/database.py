"""Which database a command works on."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agno_sql.cli.text import command_line
from agno_sql.errors import StoreError
from agno_sql.memory.sql import SQLMemory
from agno_sql.store.database import Database
from agno_sql.store.engine import open_engine
from agno_sql.store.url import normalize_url, shown_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager


def shown(url: str) -> str:
    """Return *url* as it may be shown."""
    return shown_url(normalize_url(url))


def has_secrets(url: str) -> bool:
    """Tell whether *url* holds what ``shown`` leaves out."""
    parsed = normalize_url(url)
    return parsed.password is not None or bool(parsed.query)


def file_of(url: str) -> Path | None:
    """Return the SQLite file that *url* names; ``None`` for what is no file or can't be told."""
    parsed = normalize_url(url)
    name = parsed.database or ":memory:"
    if parsed.get_backend_name() != "sqlite" or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name).absolute()


def existing(url: str) -> str:
    """Return *url*, or raise StoreError if it names an SQLite file that does not exist."""
    file = file_of(url)
    if file is not None and not file.exists():
        raise StoreError(
            f"there is no database file {file}; name another with --database, or make it: "
            f"{command_line(['db', 'upgrade', '--database', url])}"
        )
    return url


def open_to_read(url: str) -> AbstractAsyncContextManager[SQLMemory]:
    """Open the memory of a database that has to exist and is not upgraded."""
    return SQLMemory.open(existing(url), migrate=False)


@asynccontextmanager
async def open_tables(url: str) -> AsyncIterator[Database]:
    """Open a database whatever its tables are; it is closed at the end."""
    engine = open_engine(url)
    try:
        yield Database(engine)
    finally:
        await engine.dispose()
