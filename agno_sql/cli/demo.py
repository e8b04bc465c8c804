"""``agno-sql demo``: two users, two processes, one database."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from agno_sql import settings
from agno_sql.cli.console import note, out, styled
from agno_sql.cli.database import file_of, has_secrets, open_to_read, shown
from agno_sql.cli.model import chosen_model, described
from agno_sql.cli.second_process import tell
from agno_sql.cli.text import command_line, one_line, when
from agno_sql.errors import InvalidDatabaseURLError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from agno_sql.message import Message

_NAMES: Final = {"alice": "Alice", "bob": "Bob"}
_INSTRUCTIONS: Final = "You are a friendly assistant. Answer in one short sentence."


@dataclass(frozen=True, slots=True)
class _Part:
    """What is said in one process; the fields are the arguments of ``tell``."""

    url: str
    session: str
    instructions: str
    said: Mapping[str, str]


def demo(url: str) -> None:
    """Play the story on the database of *url*; exits with 1 unless all answers were right."""
    if shown(url).startswith("sqlite:") and file_of(url) is None:
        raise InvalidDatabaseURLError("the demo's second process can only share a database file")
    console = out()
    session = f"demo-{secrets.token_hex(4)}"  # a new one, so that a demo never erases anything
    told = _Part(url, session, _INSTRUCTIONS, {u: f"My name is {n}." for u, n in _NAMES.items()})
    asked = _Part(url, session, _INSTRUCTIONS, dict.fromkeys(_NAMES, "What's my name?"))

    _heading(console, 1, f"This process ({os.getpid()}): one agent, two users")
    _show_talk(console, told.said, asyncio.run(tell(**asdict(told))))

    answers, pid = _in_second_process(asked)
    _heading(console, 2, f"A second process ({pid}): a new agent, the same database")
    _show_talk(console, asked.said, answers)

    _heading(console, 3, f"What is stored in session {session}")
    console.print(_rows_table(asyncio.run(_stored(url, session))))

    is_right = _is_right(answers)
    _show_result(console, is_right=is_right)
    _show_where(console, url)
    _show_next(console, url, session)
    if not is_right:
        raise typer.Exit(1)


def _in_second_process(part: _Part) -> tuple[dict[str, str], int]:
    """Play *part* in a process of its own; return the answers and the process's id."""
    # -P: as for the console script, modules in the current folder are not found.
    command = [sys.executable, "-P", "-m", "agno_sql.cli.second_process"]
    done = subprocess.run(  # noqa: S603  (our own interpreter and module)
        command, input=json.dumps(asdict(part)), stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        note(f"the second process ended with exit code {done.returncode}")
        raise typer.Exit(1)
    result = json.loads(done.stdout)
    return result["answers"], result["pid"]


async def _stored(url: str, session: str) -> dict[str, list[Message]]:
    async with open_to_read(url) as memory:
        return {user: await memory.get_messages(user, session_id=session) for user in _NAMES}


def _is_right(answers: Mapping[str, str]) -> bool:
    """Tell whether each user got their own name and nobody else's."""
    return all(
        {name for name in _NAMES.values() if re.search(rf"\b{name}\b", answers[user])} == {own}
        for user, own in _NAMES.items()
    )


def _heading(console: Console, number: int, text: str) -> None:
    console.print(Text.assemble("\n", (f" {number} ", "reverse bold"), (f" {text}", "bold")))


def _show_talk(console: Console, said: Mapping[str, str], answers: Mapping[str, str]) -> None:
    talk = Table.grid(padding=(0, 2))
    for user, text in said.items():
        talk.add_row("  ", styled(user, "cyan"), styled(text))
        talk.add_row("  ", styled("assistant", "green"), styled(one_line(answers[user])))
    console.print(talk)


def _rows_table(stored: Mapping[str, list[Message]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("user_id")
    table.add_column("seq", justify="right")
    table.add_column("role")
    table.add_column("content")
    table.add_column("created_at", no_wrap=True)
    for user, messages in stored.items():
        for message in messages:
            table.add_row(
                styled(user, "cyan"),
                str(message.seq),
                styled(message.role, "green" if message.role == "assistant" else ""),
                styled(one_line(message.content)),
                when(message.created_at),
            )
        table.add_section()
    return table


def _show_result(console: Console, *, is_right: bool) -> None:
    if is_right:
        console.print(Text("Right: each user got their own name, and only that.", "bold green"))
    else:
        console.print(
            Text("Wrong: a user did not get their own name, or got another's.", "bold red")
        )


def _show_where(console: Console, url: str) -> None:
    file = file_of(url)
    console.print(f"model     {described(chosen_model())}", soft_wrap=True)
    # A path is printed whole: a wrapped one can't be copied.
    console.print(f"database  {one_line(str(file)) if file else shown(url)}", soft_wrap=True)


def _show_next(console: Console, url: str, session: str) -> None:
    console.print(Text("\nTry next:", "bold"))
    database: list[str] = []
    if has_secrets(url):
        console.print("  (with the database's URL in AGNO_SQL_DATABASE_URL)")
    elif url != settings.database_url():
        database = ["--database", url]
    for arguments in (
        ["chat", "--user", "alice", "--session", session],
        ["history", "bob", "--session", session],
    ):
        console.print(f"  {command_line([*arguments, *database])}", soft_wrap=True)
