"""Where and how the migrations run: on a given connection, on a URL, or as SQL to a file."""

from __future__ import annotations

import asyncio
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any, Final

from alembic import context
from sqlalchemy import text

from agno_sql.settings import database_url
from agno_sql.store.engine import open_engine
from agno_sql.store.schema import VERSION_TABLE
from agno_sql.store.tables import metadata
from agno_sql.store.url import normalize_url

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Any number that others are unlikely to use; it orders the processes that migrate at once.
_ADVISORY_LOCK: Final = 4_742_660_311


def _is_ours(name: str | None, kind: str, _: Any) -> bool:
    """Leave the tables of the database's host out of every comparison."""
    return kind != "table" or name in metadata.tables


_OPTIONS: Final[dict[str, Any]] = {
    "target_metadata": metadata,
    "version_table": VERSION_TABLE,
    "include_name": _is_ours,
    # SQLite can roll DDL back too, as long as nothing commits in between.
    "transactional_ddl": True,
}


def _url() -> str:
    return context.get_x_argument(as_dictionary=True).get("url") or database_url()


def _in_transaction(connection: Connection) -> bool:
    driver = connection.connection.driver_connection
    return driver is not None and bool(driver.in_transaction)


def _run(connection: Connection) -> None:
    context.configure(connection=connection, **_OPTIONS)
    with context.begin_transaction():
        # Taken before Alembic looks at the version, so that of several processes one works and
        # the others find it done.
        if connection.dialect.name != "sqlite":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        elif not _in_transaction(connection):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        context.run_migrations()


async def _connect_and_run() -> None:
    engine = open_engine(_url())
    try:
        async with engine.connect() as conn:
            await conn.run_sync(_run)
            await conn.commit()
    finally:
        await engine.dispose()


if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
if context.is_offline_mode():
    context.configure(
        url=normalize_url(_url()),
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        **_OPTIONS,
    )
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    asyncio.run(_connect_and_run())
