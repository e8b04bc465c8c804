from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from agno_sql import Message, SQLMemory, ToolCall
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

ASKED_AT = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)


@pytest.fixture
async def story(database: str) -> str:
    """One conversation with everything a message may have."""
    call = ToolCall(id="call-1", name="get_weather", arguments='{"city": "Köln"}')
    async with SQLMemory.open(database, clock=FakeClock(ASKED_AT)) as memory:
        await memory.extend(
            [
                Message.user("What's the weather?", name="Zoë"),
                Message(role="assistant", content="", tool_calls=(call,), run_id="run-1"),
                Message.tool("rain [bold]\x1b[2J\x9b31m\ud800", tool_call_id="call-1"),
                Message.assistant("Rain.\nTake an umbrella."),
            ],
            "alice",
        )
        await memory.add(Message.user("another session"), "alice", session_id="work")
    return database


async def test_json_has_every_field_a_message_has_and_no_others(
    cli: CommandLine, story: str
) -> None:
    done = cli("history", "alice", "--json", "--database", story)

    assert (done.returncode, done.stderr) == (0, "")
    at = ASKED_AT.isoformat()
    assert json.loads(done.stdout) == [
        {
            "seq": 1,
            "role": "user",
            "content": "What's the weather?",
            "created_at": at,
            "name": "Zoë",
        },
        {
            "seq": 2,
            "role": "assistant",
            "content": "",
            "created_at": at,
            "tool_calls": [
                {"id": "call-1", "name": "get_weather", "arguments": '{"city": "Köln"}'}
            ],
            "run_id": "run-1",
        },
        {
            "seq": 3,
            "role": "tool",
            "content": "rain [bold]\x1b[2J\x9b31m\ud800",
            "created_at": at,
            "tool_call_id": "call-1",
        },
        {
            "seq": 4,
            "role": "assistant",
            "content": "Rain.\nTake an umbrella.",
            "created_at": at,
        },
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
async def test_no_stored_text_can_command_the_terminal(
    cli: CommandLine, story: str, options: list[str]
) -> None:
    done = cli("history", "alice", *options, "--database", story)

    assert done.returncode == 0
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stdout)
    assert "[bold]" in done.stdout, "markup is shown, not obeyed"


async def test_history_shows_roles_times_names_and_tool_calls(cli: CommandLine, story: str) -> None:
    done = cli("history", "alice", "--database", story)

    lines = done.stdout.splitlines()
    assert lines[0].split() == ["1", "user", "Zoë", "2026-03-01", "12:00:00", "UTC"]
    assert lines[1].strip() == "What's the weather?"
    assert 'get_weather({"city": "Köln"})' in done.stdout
    assert "rain [bold]\ufffd[2J\ufffd31m\ufffd" in done.stdout
    assert lines[-2:] == ["    Rain.", "    Take an umbrella."]


async def test_limit_takes_the_newest_and_session_another_conversation(
    cli: CommandLine, story: str
) -> None:
    newest = cli("history", "alice", "--limit", "1", "--json", "--database", story)
    other = cli("history", "alice", "--session", "work", "--json", "--database", story)

    assert [message["seq"] for message in json.loads(newest.stdout)] == [4]
    assert [message["content"] for message in json.loads(other.stdout)] == ["another session"]


async def test_an_unknown_user_has_no_messages(cli: CommandLine, story: str) -> None:
    plain = cli("history", "nobody", "--database", story)
    as_json = cli("history", "nobody", "--json", "--database", story)

    assert (plain.returncode, plain.stdout) == (0, "")
    assert "no messages" in plain.stderr
    assert (as_json.returncode, json.loads(as_json.stdout)) == (0, [])


@pytest.mark.parametrize("options", [[], ["--json"]])
async def test_a_stdout_that_knows_only_ascii_is_no_reason_to_fail(
    cli: CommandLine, story: str, options: list[str]
) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    done = cli("history", "alice", *options, "--database", story, env=ascii_only)
    users = cli("users", "--database", story, env=ascii_only)

    assert (done.returncode, users.returncode) == (0, 0), done.stderr + users.stderr
    assert (done.stdout + users.stdout).isascii()
    if options:
        assert json.loads(done.stdout)[0]["name"] == "Zoë"


@pytest.fixture
async def three_users(database: str) -> str:
    """Ann was here 40 days ago, Ben 20 days ago, Cleo now."""
    clock = FakeClock(datetime.now(UTC) - timedelta(days=40))
    async with SQLMemory.open(database, clock=clock) as memory:
        await memory.extend([Message.user("1"), Message.user("2")], "ann")
        await memory.add(Message.user("3"), "ann", session_id="other")
        clock.advance(timedelta(days=20))
        await memory.add(Message.user("hello"), "ben")
        clock.advance(timedelta(days=20))
        await memory.add(Message.user("hello"), "cleo")
    return database


def _names(output: str) -> list[str]:
    return [user["user_id"] for user in json.loads(output)]


async def test_users_are_listed_longest_idle_first_with_their_numbers(
    cli: CommandLine, three_users: str
) -> None:
    table = cli("users", "--database", three_users)
    as_json = cli("users", "--json", "--database", three_users)

    assert (table.returncode, table.stderr) == (0, "")
    rows = [line.split()[:3] for line in table.stdout.splitlines() if re.match(" *[abc]", line)]
    assert rows == [["ann", "2", "3"], ["ben", "1", "1"], ["cleo", "1", "1"]]
    listed = json.loads(as_json.stdout)
    assert [tuple(user) for user in listed] == [
        ("user_id", "sessions", "messages", "last_active_at")
    ] * 3
    since = datetime.now(UTC) - datetime.fromisoformat(listed[0]["last_active_at"])
    assert timedelta(days=40) <= since < timedelta(days=41)


async def test_users_can_be_limited_to_the_inactive_and_to_a_number(
    cli: CommandLine, three_users: str
) -> None:
    inactive = cli("users", "--inactive", "30d", "--json", "--database", three_users)
    two_weeks = cli("users", "--inactive", "2w", "--json", "--database", three_users)
    first = cli("users", "--limit", "1", "--json", "--database", three_users)

    assert _names(inactive.stdout) == ["ann"]
    assert _names(two_weeks.stdout) == ["ann", "ben"]
    assert _names(first.stdout) == ["ann"]
    assert "--limit" in first.stderr


async def test_a_dry_run_counts_and_deletes_nothing(cli: CommandLine, three_users: str) -> None:
    done = cli("cleanup", "--inactive", "10d", "--dry-run", "--database", three_users)

    assert done.returncode == 0
    assert "2 users with 4 messages" in done.stdout
    left = cli("users", "--json", "--database", three_users)
    assert _names(left.stdout) == ["ann", "ben", "cleo"]


async def test_cleanup_deletes_the_inactive_and_keeps_the_others(
    cli: CommandLine, three_users: str
) -> None:
    done = cli("cleanup", "--inactive", "10d", "--yes", "--database", three_users)

    assert done.returncode == 0, done.stderr
    assert "deleted 2 users" in done.stdout
    assert "2/2" in done.stderr, "the progress bar"
    left = cli("users", "--json", "--database", three_users)
    assert _names(left.stdout) == ["cleo"]


async def test_cleanup_of_nobody_asks_nothing(cli: CommandLine, three_users: str) -> None:
    done = cli("cleanup", "--inactive", "90d", "--yes", "--database", three_users)

    assert done.returncode == 0
    assert "0 users" in done.stdout


async def test_without_a_terminal_cleanup_needs_yes_or_dry_run(
    cli: CommandLine, three_users: str
) -> None:
    done = cli("cleanup", "--inactive", "10d", "--database", three_users, stdin="y\n")

    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "--dry-run" in done.stderr
    assert _names(cli("users", "--json", "--database", three_users).stdout)[0] == "ann"


@pytest.mark.parametrize(
    "answer, code, left",
    [
        ("y", 0, ["cleo"]),
        ("n", 1, ["ann", "ben", "cleo"]),
        ("", 1, ["ann", "ben", "cleo"]),
        ("\x03", 130, ["ann", "ben", "cleo"]),
        ("\x04", 1, ["ann", "ben", "cleo"]),
    ],
    ids=["yes", "no", "enter", "ctrl-c", "ctrl-d"],
)
async def test_at_a_terminal_cleanup_asks_first(
    cli: CommandLine, three_users: str, answer: str, code: int, left: list[str]
) -> None:
    terminal = cli.terminal("cleanup", "--inactive", "10d", "--database", three_users)
    terminal.expect("Delete 2 users with 4 messages")
    terminal.expect(r"\[y/N\]")
    if answer in ("\x03", "\x04"):
        terminal.send(answer)
    else:
        terminal.sendline(answer)
    terminal.read()
    terminal.close()

    assert terminal.exitstatus == code
    assert _names(cli("users", "--json", "--database", three_users).stdout) == left
