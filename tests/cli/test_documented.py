from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from agno_sql.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")


def _commands(command: Any, path: str = "agno-sql") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its path."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from _commands(child, f"{path} {name}")


COMMANDS = dict(_commands(typer.main.get_command(app)))


def _section(path: str) -> str:
    found = re.search(rf"^## {re.escape(path)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section '## {path}'"
    return found[1]


def test_the_program_has_the_commands_that_were_promised() -> None:
    promised = ["demo", "chat", "serve", "history", "users", "cleanup", "doctor"]
    promised += [f"keys {name}" for name in ("create", "list", "revoke")]
    promised += [f"db {name}" for name in ("upgrade", "downgrade", "current", "check")]

    assert set(COMMANDS) == {f"agno-sql {name}" for name in promised}


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_and_option_is_documented_with_an_example(path: str) -> None:
    section = _section(path)

    assert f"agno-sql {path.removeprefix('agno-sql ')}" in "".join(
        re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    )
    for parameter in COMMANDS[path].params:
        for option in parameter.opts:
            assert not option.startswith("--") or f"`{option}`" in section, option
    assert "--version" in PAGE
    assert "--help" in PAGE


def test_the_page_documents_no_command_or_option_that_does_not_exist() -> None:
    sections = re.findall(r"^## (agno-sql .*)$", PAGE, re.MULTILINE)
    options = {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        for option in parameter.opts
    }

    assert set(sections) == set(COMMANDS)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", PAGE)) - options == {
        "--help",
        "--version",
    }
