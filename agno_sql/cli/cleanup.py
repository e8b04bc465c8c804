"""``agno-sql cleanup``: delete the users who have been away for long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from agno_sql.cli.console import Misuse, confirmed, err, is_terminal, note, out
from agno_sql.cli.database import open_to_read
from agno_sql.cli.durations import duration_text
from agno_sql.cli.text import counted

if TYPE_CHECKING:
    from datetime import timedelta

_PAGE: Final = 1000


@dataclass(slots=True)
class _Totals:
    users: int = 0
    messages: int = 0

    def __str__(self) -> str:
        return f"{counted(self.users, 'user')} with {counted(self.messages, 'message')}"


def cleanup(idle_for: timedelta, *, dry_run: bool, yes: bool, url: str) -> None:
    """Delete the users without activity for *idle_for*, after showing how many they are."""
    if not (dry_run or yes or is_terminal()):
        raise Misuse("Nobody can be asked here: say --yes to delete, or --dry-run to look.")
    found = asyncio.run(_count(idle_for, url))
    out().print(f"{found} inactive for {duration_text(idle_for)} or longer")
    if dry_run or not found.users:
        return
    if not yes and not confirmed(f"Delete {found}? This can't be undone."):
        note("nothing was deleted")
        raise typer.Exit(1)
    deleted = asyncio.run(_delete(idle_for, found.users, url))
    out().print(f"deleted {counted(deleted, 'user')}")


async def _count(idle_for: timedelta, url: str) -> _Totals:
    totals = _Totals()
    async with open_to_read(url) as memory:
        last = None
        while page := await memory.inactive_users(idle_for, limit=_PAGE, after=last):
            last = page[-1]
            totals.users += len(page)
            totals.messages += sum(user.messages for user in page)
    return totals


async def _delete(idle_for: timedelta, expected: int, url: str) -> int:
    columns = (TextColumn("deleting"), BarColumn(), MofNCompleteColumn(), TextColumn("users"))
    with Progress(*columns, console=err()) as bar:
        task = bar.add_task("", total=expected)
        async with open_to_read(url) as memory:
            return await memory.delete_inactive(
                idle_for, progress=lambda users: bar.advance(task, users)
            )
