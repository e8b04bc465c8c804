"""Which version of the tables a database has; Alembic is loaded only where there is work to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text

from agno_sql.errors import SchemaOutOfDateError
from agno_sql.store.url import shown_url

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.store.database import Database

HEAD: Final = "0006"
"""The newest migration; a test holds it against the migrations folder."""

VERSION_TABLE: Final = "agno_sql_version"
"""Alembic's table under a name of our own, as the database may be shared with its host's."""


async def current_revision(conn: AsyncConnection) -> str | None:
    """Return the revision the database is at, ``None`` for one without our tables."""
    if not await conn.run_sync(lambda connection: inspect(connection).has_table(VERSION_TABLE)):
        return None
    revision: str | None = await conn.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608  (a constant)
    return revision


async def check_schema(conn: AsyncConnection) -> None:
    """Raise SchemaOutOfDateError unless the tables are of this version."""
    revision = await current_revision(conn)
    if revision == HEAD:
        return
    shown = shown_url(conn.engine.url)
    upgrade = f"agno-sql db upgrade --database '{shown}'"
    if revision is None:
        raise SchemaOutOfDateError(f"{shown} has no agno_sql tables; make them: {upgrade}")
    if revision < HEAD:
        raise SchemaOutOfDateError(
            f"{shown} is at revision {revision}, agno_sql needs {HEAD}: {upgrade}"
        )
    raise SchemaOutOfDateError(
        f"{shown} is at revision {revision}, newer than the {HEAD} this agno_sql knows: "
        "pip install -U agno-sql"
    )


async def prepare_schema(database: Database, *, may_upgrade: bool) -> None:
    """Return when the tables are of this version, after upgrading them if that is allowed.

    Raises:
        SchemaOutOfDateError: They are not, and may not or can't be upgraded; names the command.
    """
    revision = await database.read(current_revision)
    if may_upgrade and (revision is None or revision < HEAD):
        from agno_sql.store.migrate import upgrade  # noqa: PLC0415  (loads Alembic)

        await database.write(upgrade, long=True)
    else:
        await database.read(check_schema)
