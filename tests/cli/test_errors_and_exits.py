from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

READING = [
    ["history", "alice"],
    ["users"],
    ["cleanup", "--inactive", "30d", "--yes"],
    ["db", "current"],
    ["db", "check"],
    ["db", "downgrade", "base", "--yes"],
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_missing_file_is_named_and_not_made(cli: CommandLine, command: list[str]) -> None:
    done = cli(*command, "--database", "sqlite:///missing.db")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert str(cli.folder / "missing.db") in done.stderr
    assert list(cli.folder.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["history", ""],
        ["history", "a\x1bb"],
        ["history", "alice", "--session", ""],
        ["chat", "--user", ""],
        ["history", "alice", "--database", "mysql://root:s3cret@host/db"],
        ["history", "alice", "--database", "no url s3cret"],
        ["users", "--database", "postgresql://me:s3cret@127.0.0.1:1/db"],
        ["chat", "--user", "alice", "--database", "sqlite:////no/such/folder/chat.db"],
        ["db", "upgrade", "nope", "--database", "sqlite:///new.db"],
    ],
    ids=" ".join,
)
def test_an_error_is_one_line_on_stderr_without_secrets(
    cli: CommandLine, arguments: list[str]
) -> None:
    (cli.folder / "agno_sql.db").touch()

    done = cli(*arguments)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nonsense"], "nonsense"),
        (["chat"], "--user"),
        (["history"], "USER"),
        (["history", "alice", "--limit", "0"], "--limit"),
        (["cleanup"], "--inactive"),
        (["cleanup", "--inactive", "30"], "30d"),
        (["users", "--inactive", "-1d"], "30d"),
        (["users", "--inactive", "999999999d"], "36500d"),
        (["db", "downgrade"], "REVISION"),
    ],
    ids=str,
)
def test_misuse_exits_with_2_and_says_what_is_accepted(
    cli: CommandLine, arguments: list[str], told: str
) -> None:
    done = cli(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_the_environment_names_the_database(cli: CommandLine) -> None:
    env = {"AGNO_SQL_DATABASE_URL": "sqlite:///ours.db", "DATABASE_URL": "sqlite:///theirs.db"}

    assert str(cli.folder / "ours.db") in cli("users", env=env).stderr
    assert (
        str(cli.folder / "theirs.db")
        in cli("users", env=env | {"AGNO_SQL_DATABASE_URL": ""}).stderr
    )
    assert str(cli.folder / "agno_sql.db") in cli("users").stderr


def test_the_version_is_that_of_the_package(cli: CommandLine) -> None:
    assert cli("--version").stdout == f"agno-sql {version('agno-sql')}\n"


def test_python_m_agno_sql_is_the_same_program(cli: CommandLine) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agno_sql", "--version"],
        cwd=cli.folder,
        env=cli.env,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == cli("--version").stdout


def test_help_loads_nothing_heavy(cli: CommandLine) -> None:
    script = (
        "import sys\n"
        "from agno_sql.cli.main import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "heavy = {'sqlalchemy', 'alembic', 'openai', 'pydantic', 'asyncpg', 'aiosqlite'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=cli.env, capture_output=True, text=True, check=False
    )

    assert (done.stderr.strip(), done.returncode) == ("", 0)
    assert "chat" in done.stdout


@pytest.mark.parametrize(
    "line, said",
    [
        ("chat --user alice <&-", ""),
        ("users >&-", ""),
        ("users >/dev/full", "No space left"),
    ],
)
def test_a_closed_or_full_stream_is_no_traceback(cli: CommandLine, line: str, said: str) -> None:
    assert cli("chat", "--user", "alice", stdin="hello\n").returncode == 0
    done = cli.shell(f"agno-sql {line}", path=cli.env["PATH"])
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert said in done.stderr
    assert done.returncode == (1 if said else 0)
