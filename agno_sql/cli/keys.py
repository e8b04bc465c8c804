"""``agno-sql keys``: the API keys of a server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table

from agno_sql.cli.console import note, out, print_json, say_error, styled
from agno_sql.cli.database import open_to_read
from agno_sql.cli.text import one_line, when
from agno_sql.errors import InvalidOptionError

if TYPE_CHECKING:
    from agno_sql.api_key import ApiKey


def create(name: str, *, is_admin: bool, url: str) -> None:
    """Make a key and print it, alone on stdout: it can't be shown again."""
    key, text = asyncio.run(_create(name, is_admin, url))
    typer.echo(text)
    note(f"key {key.id}: keep it now, it can't be shown again")


def listed(*, as_json: bool, url: str) -> None:
    """Print all keys, revoked ones too."""
    keys = asyncio.run(_every(url))
    if as_json:
        print_json([_as_record(key) for key in keys])
    elif keys:
        out().print(_as_table(keys))
    else:
        note("no keys")


def revoke(key_id: str, *, url: str) -> None:
    """Revoke a key from now on; exits with 1 if there is none."""
    if not asyncio.run(_revoke(key_id, url)):
        say_error(InvalidOptionError(f"there is no valid key {one_line(key_id)}"))
        raise typer.Exit(1)
    out().print(f"revoked {one_line(key_id)}")


def _as_table(keys: list[ApiKey]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("key", "name", "scope", "created (UTC)", "revoked (UTC)"):
        table.add_column(column, overflow="fold")
    for key in keys:
        table.add_row(
            styled(key.id, "cyan"),
            styled(one_line(key.name)),
            _scope(key),
            when(key.created_at),
            when(key.revoked_at),
        )
    return table


def _as_record(key: ApiKey) -> dict[str, str | None]:
    return {
        "key": key.id,
        "name": key.name,
        "scope": _scope(key),
        "created_at": key.created_at.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
    }


def _scope(key: ApiKey) -> str:
    return "admin" if key.is_admin else "users"


async def _create(name: str, is_admin: bool, url: str) -> tuple[ApiKey, str]:
    async with open_to_read(url) as memory:
        return await memory.api_keys.create(name, is_admin=is_admin)


async def _every(url: str) -> list[ApiKey]:
    async with open_to_read(url) as memory:
        return await memory.api_keys.every()


async def _revoke(key_id: str, url: str) -> bool:
    async with open_to_read(url) as memory:
        return await memory.api_keys.revoke(key_id)
