"""``agno-sql db``: the tables and their version."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import typer

from agno_sql.cli.console import Misuse, confirmed, is_terminal, note, out
from agno_sql.cli.database import existing, open_tables, shown
from agno_sql.cli.text import one_line
from agno_sql.store import migrate
from agno_sql.store.schema import HEAD, check_schema, current_revision

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


def upgrade(revision: str, *, url: str) -> None:
    """Bring the tables up to *revision* and say where they are."""
    _say(asyncio.run(_change(url, upgrade_to=revision)))


def downgrade(revision: str, *, yes: bool, url: str) -> None:
    """Bring the tables down to *revision* after asking, as rows may be lost."""
    if not (yes or is_terminal()):
        raise Misuse("Nobody can be asked here: say --yes to downgrade, rows may be lost.")
    question = f"Downgrade {shown(existing(url))} to {one_line(revision)}? Rows may be lost."
    if not yes and not confirmed(question):
        note("nothing was changed")
        raise typer.Exit(1)
    _say(asyncio.run(_change(existing(url), downgrade_to=revision)))


def current(*, url: str) -> None:
    """Print the revision of the tables."""
    _say(asyncio.run(_change(existing(url))))


def check(*, url: str) -> None:
    """Return if tables, columns, foreign keys and indexes are this version's; else the error tells more."""
    asyncio.run(_check(existing(url)))
    out().print(f"{HEAD}: tables, columns, foreign keys and indexes are as this version needs them")


def _say(revision: str | None) -> None:
    if revision is None:
        out().print(f"none: there are no agno_sql tables (head is {HEAD})", soft_wrap=True)
    else:
        out().print(f"{revision} (head)" if revision == HEAD else f"{revision} (head is {HEAD})")


async def _change(
    url: str, *, upgrade_to: str | None = None, downgrade_to: str | None = None
) -> str | None:
    async with open_tables(url) as database:
        if upgrade_to is not None:
            await database.write(partial(migrate.upgrade, revision=upgrade_to), long=True)
        if downgrade_to is not None:
            await database.write(partial(migrate.downgrade, revision=downgrade_to), long=True)
        return await database.read(current_revision)


async def _check(url: str) -> None:
    async def look(conn: AsyncConnection) -> None:
        await check_schema(conn)  # its message names the command that helps
        await migrate.check(conn)

    async with open_tables(url) as database:
        await database.read(look)
