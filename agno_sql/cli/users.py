"""``agno-sql users``: who is stored, and since when they are away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from agno_sql.cli.console import note, out, print_json, styled
from agno_sql.cli.database import open_to_read
from agno_sql.cli.text import counted, one_line, when

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from agno_sql.message import UserActivity


def users(*, idle_for: timedelta, limit: int, as_json: bool, url: str) -> None:
    """Print the users without activity for *idle_for*, longest idle first, at most *limit*."""
    found = asyncio.run(_read(idle_for, limit + 1, url))
    page = found[:limit]
    if as_json:
        print_json([_as_record(user) for user in page])
    elif page:
        out().print(as_table(page))
    else:
        note("no users")
    if len(found) > limit:
        note(f"there are more than {counted(limit, 'user')}: see them with a higher --limit")


def as_table(found: Sequence[UserActivity]) -> Table:
    """Return *found* as a table for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("user_id", overflow="fold")
    table.add_column("sessions", justify="right")
    table.add_column("messages", justify="right")
    table.add_column("last active (UTC)", no_wrap=True)
    for user in found:
        table.add_row(
            styled(one_line(user.user_id), "cyan"),
            f"{user.sessions:,}",
            f"{user.messages:,}",
            when(user.last_active_at),
        )
    return table


def _as_record(user: UserActivity) -> dict[str, str | int]:
    return {
        "user_id": user.user_id,
        "sessions": user.sessions,
        "messages": user.messages,
        "last_active_at": user.last_active_at.isoformat(),
    }


async def _read(idle_for: timedelta, limit: int, url: str) -> list[UserActivity]:
    async with open_to_read(url) as memory:
        return await memory.inactive_users(idle_for, limit=limit)
