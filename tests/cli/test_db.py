from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agno_sql.store.schema import HEAD

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, cli: CommandLine) -> str:
    if request.param == "sqlite":
        (cli.folder / "empty.db").touch()
        return "sqlite:///empty.db"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


def test_the_tables_go_up_down_and_up_again(cli: CommandLine, empty_url: str) -> None:
    def db(*arguments: str) -> tuple[int, str]:
        done = cli("db", *arguments, "--database", empty_url)
        return done.returncode, done.stdout.partition(":")[0].strip()

    assert db("current") == (0, "none")
    assert db("check")[0] == 1
    assert db("upgrade", "0001") == (0, f"0001 (head is {HEAD})")
    assert db("current") == (0, f"0001 (head is {HEAD})")
    assert db("check")[0] == 1
    assert db("upgrade") == (0, f"{HEAD} (head)")
    assert db("upgrade") == (0, f"{HEAD} (head)")
    assert db("check") == (0, HEAD)
    assert db("downgrade", "base", "--yes") == (0, "none")
    assert db("upgrade", "head") == (0, f"{HEAD} (head)")


def test_check_tells_what_helps_when_behind(cli: CommandLine) -> None:
    cli("db", "upgrade", "0001", "--database", "sqlite:///chat.db")

    done = cli("db", "check", "--database", "sqlite:///chat.db")

    assert (done.returncode, done.stdout) == (1, "")
    assert "0001" in done.stderr
    assert "agno-sql db upgrade" in done.stderr


def test_check_finds_tables_changed_by_hand(cli: CommandLine) -> None:
    cli("db", "upgrade", "--database", "sqlite:///chat.db")
    with closing(sqlite3.connect(cli.folder / "chat.db")) as connection:
        connection.execute("ALTER TABLE messages ADD COLUMN mood TEXT")

    done = cli("db", "check", "--database", "sqlite:///chat.db")

    assert done.returncode == 1
    assert "mood" in done.stderr
    assert "mood" in done.stderr
    assert "Traceback" not in done.stderr


def test_reading_commands_upgrade_nothing(cli: CommandLine) -> None:
    cli("db", "upgrade", "0001", "--database", "sqlite:///chat.db")

    assert cli("users", "--database", "sqlite:///chat.db").returncode == 1
    current = cli("db", "current", "--database", "sqlite:///chat.db")
    assert current.stdout.startswith("0001 ")


def test_downgrade_without_a_terminal_needs_yes(cli: CommandLine) -> None:
    cli("db", "upgrade", "--database", "sqlite:///chat.db")

    done = cli("db", "downgrade", "base", "--database", "sqlite:///chat.db", stdin="y\n")

    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert cli("db", "check", "--database", "sqlite:///chat.db").returncode == 0


@pytest.mark.parametrize("answer, code, revision", [("y", 0, "none"), ("n", 1, HEAD)])
def test_downgrade_asks_at_a_terminal(
    cli: CommandLine, answer: str, code: int, revision: str
) -> None:
    cli("db", "upgrade", "--database", "sqlite:///chat.db")
    terminal = cli.terminal("db", "downgrade", "base", "--database", "sqlite:///chat.db")

    terminal.expect(r"Rows may be lost\. \[y/N\]")
    terminal.sendline(answer)
    terminal.read()
    terminal.close()

    assert terminal.exitstatus == code
    current = cli("db", "current", "--database", "sqlite:///chat.db")
    assert current.stdout.startswith(revision)
