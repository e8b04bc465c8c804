from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql import Message, SQLMemory
from agno_sql.clock import SystemClock
from tests.store.examined import plant, write_two_conversations
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

HOSTILE = "m\x1b[2Jal\x9b31mlory [bold]\n'; DROP TABLE messages"


@pytest.fixture(params=["sqlite", "postgresql"])
async def whole(request: pytest.FixtureRequest, database: str) -> str:
    """A database where all is well: Alice's run has ended, Bob's is at work."""
    url: str = database if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    await write_two_conversations(url, FakeClock(SystemClock().now()))
    return url


def _examined(cli: CommandLine, url: str, *options: str) -> tuple[int, Any]:
    done = cli("doctor", "--json", *options, "--database", url)
    return done.returncode, json.loads(done.stdout)


async def test_a_healthy_database_exits_with_0(cli: CommandLine, whole: str) -> None:
    done = cli("doctor", "--database", whole)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("healthy")
    assert _examined(cli, whole) == (0, [])


async def test_findings_exit_with_1_and_tell_their_place(cli: CommandLine, whole: str) -> None:
    plant(
        whole,
        "DELETE FROM messages WHERE user_id = 'alice' AND seq = 1",
        "UPDATE conversations SET message_count = 4 WHERE user_id = 'alice'",
        "UPDATE conversations SET lease_expires_at = '2026-03-01 12:00:00.000000'"
        " WHERE user_id = 'bob'",
    )

    done = cli("doctor", "--database", whole)
    code, found = _examined(cli, whole)

    assert (done.returncode, done.stderr, code) == (1, "", 1)
    gap, stale = found
    assert gap.pop("detail")
    assert gap == {"check": "seq_gap", "user_id": "alice", "session_id": "default", "seq": 1}
    assert "2026-03-01 12:00:00 UTC" in stale["detail"]
    assert "recover()" in stale["detail"]
    lines = done.stdout.splitlines()
    assert lines[0] == "seq_gap: 1 finding"
    assert lines[1].startswith("  user alice, session default, seq 1: ")
    assert lines[2] == "stale_run: 1 finding"
    assert lines[3] == f"  user bob, session default, run r2: {stale['detail']}"


async def test_each_check_shows_its_first_findings_and_counts_the_rest(
    cli: CommandLine, database: str
) -> None:
    async with SQLMemory.open(database) as memory:
        for number in range(1022, 1000, -1):
            await memory.add(Message.user("hello"), f"user-{number}")
    plant(
        database,
        "UPDATE conversations SET message_count = 2",
        "UPDATE messages SET content = '\x10' WHERE user_id = 'user-1022'",
    )

    done = cli("doctor", "--database", database)
    code, found = _examined(cli, database)

    assert (done.returncode, code) == (1, 1)
    assert "message_count: 22 findings" in done.stdout
    assert "and 2 more of message_count" in done.stderr
    assert len(re.findall(r"(?m)^  user user-10\d\d", done.stdout)) == 21
    assert [finding["user_id"] for finding in found] == [
        *(f"user-{number}" for number in range(1001, 1021)),
        "user-1022",
    ]
    assert len(_examined(cli, database, "--limit", "22")[1]) == 23
    assert len(_examined(cli, database, "--limit", "1")[1]) == 2


@pytest.mark.parametrize("options", [[], ["--json"]])
async def test_no_stored_id_can_command_the_terminal(
    cli: CommandLine, database: str, options: list[str]
) -> None:
    async with SQLMemory.open(database) as memory:
        await memory.add(Message.user("hello"), "alice")
    quoted = HOSTILE.replace("'", "''")
    for table in ("conversations", "messages"):
        plant(database, f"UPDATE {table} SET user_id = '{quoted}', session_id = '{quoted}'")
    plant(
        database,
        "UPDATE conversations SET message_count = 7",
        "UPDATE messages SET content = '\x10'",
    )

    done = cli("doctor", *options, "--database", database)

    assert done.returncode == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout), done.stdout
    assert "[bold]" in done.stdout, "markup is shown, not obeyed"
    if options:
        assert {finding["user_id"] for finding in json.loads(done.stdout)} == {HOSTILE}
    else:
        assert len(done.stdout.splitlines()) == 4


async def test_tables_of_another_version_are_a_finding(cli: CommandLine, database: str) -> None:
    cli("db", "upgrade", "0001", "--database", database)

    code, found = _examined(cli, database)

    assert (code, [finding["check"] for finding in found]) == (1, ["schema"])
    assert "agno-sql db upgrade" in found[0]["detail"]


def test_what_can_not_be_examined_is_an_error(cli: CommandLine) -> None:
    (cli.folder / "picture.db").write_bytes(b"\x89PNG" * 4096)

    for database in ("sqlite:///missing.db", "sqlite:///picture.db"):
        done = cli("doctor", "--json", "--database", database)

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
