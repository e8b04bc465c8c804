"""Engines of our own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import AsyncAdaptedQueuePool, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agno_sql.errors import StoreUnavailableError
from agno_sql.store.url import driver_options, normalize_url, shown_url

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

# Short: Database waits for a busy file itself, where a cancellation finds it.
_BUSY_TIMEOUT_S: Final = 0.25
_CONNECT_TIMEOUT_S: Final = 10.0
# Connections are given out first come first served: thousands of tasks may wait their turn.
_POOL_TIMEOUT_S: Final = 120.0
# NORMAL may lose the last commits in a power cut; with FULL, acknowledged means on disk.
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


def open_engine(url: str | URL) -> AsyncEngine:
    """Return an engine for *url*; the caller disposes it.

    Raises:
        InvalidDatabaseURLError: Not a URL of a supported database.
        StoreUnavailableError: The folder of an SQLite file does not exist.
    """
    parsed = normalize_url(url)
    if parsed.get_backend_name() != "sqlite":
        plain, connect_args = driver_options(parsed)
        return create_async_engine(
            plain,
            connect_args={"timeout": _CONNECT_TIMEOUT_S} | connect_args,
            pool_timeout=_POOL_TIMEOUT_S,
            # More than the five of batches: what the pool does not keep is opened again and again.
            pool_size=10,
            pool_reset_on_return=None,  # Database leaves no transaction open
        )
    in_memory = parsed.database in (None, "", ":memory:")
    if not in_memory and not (folder := Path(str(parsed.database)).parent).is_dir():
        raise StoreUnavailableError(
            f"the folder {folder} does not exist; make it first: {shown_url(parsed)}"
        )
    engine = create_async_engine(
        parsed,
        connect_args={"timeout": _BUSY_TIMEOUT_S},
        pool_timeout=_POOL_TIMEOUT_S,
        # A needless ROLLBACK is a hop to a thread and back.
        pool_reset_on_return=None,
        # Every connection to :memory: is a database of its own, so there must be just one.
        **(
            {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
            if in_memory
            else {}
        ),
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver's own BEGIN would come late and deferred; Database begins the transactions.
    connection.isolation_level = None
    try:
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
    except BaseException:
        connection.close()  # the pool forgets a connection whose hook failed, and its thread
        raise
