from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from agno_sql import Message, SQLMemory, ToolCall
from agno_sql.testing import Reply, ScriptedOpenAI
from tests.cli.conftest import PROMPT

if TYPE_CHECKING:
    import pexpect

    from tests.cli.conftest import CommandLine


def _key(server: ScriptedOpenAI) -> dict[str, str]:
    return {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "a-key-of-the-test"}


def _leave(terminal: pexpect.spawn[str]) -> None:
    terminal.sendline("/quit")
    terminal.read()
    terminal.close()
    assert terminal.exitstatus == 0


async def _stored(database: str) -> list[tuple[str, str]]:
    async with SQLMemory.open(database, migrate=False) as memory:
        return [(message.role, message.content) for message in await memory.get_messages("alice")]


def test_the_chat_says_where_it_is_and_remembers_over_a_restart(
    cli: CommandLine, database: str
) -> None:
    terminal = cli.terminal("chat", "--user", "alice", "--database", database)
    for told in ("alice", "default", "no AI", "no messages yet", PROMPT):
        terminal.expect(told)
    terminal.sendline("My name is Alice.")
    terminal.expect("assistant.* > .*Nice to meet you, Alice!")
    terminal.expect(PROMPT)
    terminal.sendeof()
    terminal.read()
    terminal.close()
    assert terminal.exitstatus == 0, "Ctrl-D leaves"

    again = cli.terminal("chat", "--user", "alice", "--database", database)
    again.expect("you.* > .*My name is Alice.")
    again.expect("assistant.* > .*Nice to meet you, Alice!")
    again.expect(PROMPT)
    again.sendline("What's my name?")
    again.expect(r"Your name is Alice\.")
    again.expect(PROMPT)
    _leave(again)


def test_an_answer_is_shown_while_it_still_arrives(cli: CommandLine, database: str) -> None:
    rest = threading.Event()
    reply = Reply(text="One two three four", hold=rest, hold_after_words=2)
    with ScriptedOpenAI([reply]) as server:
        terminal = cli.terminal("chat", "--user", "alice", "--database", database, env=_key(server))
        terminal.expect(PROMPT)
        terminal.sendline("count")
        terminal.expect("One two ")
        assert "three" not in terminal.buffer
        rest.set()
        terminal.expect("three four\r\n")
        terminal.expect(PROMPT)
        _leave(terminal)


def test_ctrl_c_stops_the_answer_and_not_the_program(cli: CommandLine, database: str) -> None:
    never = threading.Event()
    held = Reply(text="One two three four", hold=never, hold_after_words=2)
    with ScriptedOpenAI([held, Reply(text="I am back.")]) as server:
        terminal = cli.terminal("chat", "--user", "alice", "--database", database, env=_key(server))
        terminal.expect(PROMPT)
        terminal.sendline("count")
        terminal.expect("One two ")
        terminal.sendintr()
        terminal.expect(r"\r\n[^\r\n]*stopped[^\r\n]*\r\n")
        server.wait_for_disconnects()
        terminal.expect(PROMPT)
        terminal.sendline("hello?")
        terminal.expect(r"I am back\.")
        terminal.expect(PROMPT)
        _leave(terminal)

    assert asyncio.run(_stored(database)) == [
        ("user", "count"),
        ("user", "hello?"),
        ("assistant", "I am back."),
    ]


def test_ctrl_c_and_empty_lines_at_the_prompt_do_no_harm(cli: CommandLine, database: str) -> None:
    terminal = cli.terminal("chat", "--user", "alice", "--database", database)
    terminal.expect(PROMPT)
    terminal.sendintr()
    terminal.expect(PROMPT)
    terminal.sendline("")
    terminal.expect(PROMPT)
    terminal.sendline("   ")
    terminal.expect(PROMPT)
    _leave(terminal)

    assert asyncio.run(_stored(database)) == []


@pytest.fixture
async def long_story(database: str) -> str:
    async with SQLMemory.open(database) as memory:
        await memory.extend([Message.user(f"thought {n}.") for n in range(1, 26)], "alice")
        await memory.add(Message.user("hello"), "bob")
    return database


def test_the_start_shows_the_end_of_a_long_history_and_history_shows_all(
    cli: CommandLine, long_story: str
) -> None:
    terminal = cli.terminal("chat", "--user", "alice", "--database", long_story)
    terminal.expect("5 older messages not shown")
    terminal.expect(r"thought 6\..*thought 25\.")
    assert "thought 5." not in f"{terminal.before}{terminal.after}"
    terminal.expect(PROMPT)
    terminal.sendline("/history")
    terminal.expect(r"thought 1\..*thought 25\.")
    terminal.expect(PROMPT)
    _leave(terminal)


def test_users_and_help_and_unknown_commands_are_answered(
    cli: CommandLine, long_story: str
) -> None:
    terminal = cli.terminal("chat", "--user", "alice", "--database", long_story)
    terminal.expect(PROMPT)
    terminal.sendline("/users")
    terminal.expect(r"alice.* 1 +25 .*bob.* 1 +1 ")
    terminal.expect(PROMPT)
    terminal.sendline("/help")
    for command in ("/history", "/clear", "/users", "/help", "/quit"):
        terminal.expect(command)
    terminal.expect(PROMPT)
    terminal.sendline("/unknown")
    terminal.expect("there is no /unknown")
    terminal.expect(PROMPT)
    _leave(terminal)


def test_clear_asks_first_and_clears_only_this_conversation(
    cli: CommandLine, long_story: str
) -> None:
    terminal = cli.terminal("chat", "--user", "alice", "--database", long_story)
    terminal.expect(PROMPT)
    for refusal in ("n", "", "\x03"):
        terminal.sendline("/clear")
        terminal.expect(r"Delete 25 messages of session default\? \[y/N\]")
        if refusal == "\x03":
            terminal.sendintr()
        else:
            terminal.sendline(refusal)
        terminal.expect("nothing was deleted")
        terminal.expect(PROMPT)
    terminal.sendline("/clear")
    terminal.expect(r"\[y/N\]")
    terminal.sendline("y")
    terminal.expect("deleted")
    terminal.expect(PROMPT)
    _leave(terminal)

    assert asyncio.run(_stored(long_story)) == []
    assert "hello" in cli("history", "bob", "--database", long_story).stdout


def test_tool_calls_and_errors_are_one_line_each_and_the_chat_goes_on(
    cli: CommandLine, database: str
) -> None:
    call = ToolCall(id="call-1", name="get_weather", arguments='{"city": "Bonn"}')
    replies = [
        Reply(tool_calls=(call,)),
        Reply(text="No idea."),
        Reply(status=401, error_message="wrong\nkey"),
        Reply(text="Better."),
    ]
    with ScriptedOpenAI(replies) as server:
        terminal = cli.terminal("chat", "--user", "alice", "--database", database, env=_key(server))
        terminal.expect(PROMPT)
        terminal.sendline("weather?")
        terminal.expect(r'\r\n[^\r\n]*  → get_weather\({"city": "Bonn"}\)')
        terminal.expect(r"\r\n[^\r\n]*assistant[^\r\n]* > No idea\.\r\n")
        terminal.expect(PROMPT)
        terminal.sendline("fail")
        terminal.expect("error: [^\r\n]*wrong key")
        terminal.expect(PROMPT)
        terminal.sendline("again")
        terminal.expect(r"Better\.")
        terminal.expect(PROMPT)
        _leave(terminal)


def test_a_model_can_not_command_the_terminal(cli: CommandLine, database: str) -> None:
    with ScriptedOpenAI([Reply(text="[bold]a\x1b]0;title\x07b\x9bc[/bold] end")]) as server:
        terminal = cli.terminal("chat", "--user", "alice", "--database", database, env=_key(server))
        terminal.expect(PROMPT)
        terminal.sendline("hello")
        terminal.expect_exact("[bold]a\ufffd]0;title\ufffdb\ufffdc[/bold] end")
        terminal.expect(PROMPT)
        _leave(terminal)


def test_a_server_without_keys_needs_none(cli: CommandLine, database: str) -> None:
    with ScriptedOpenAI([Reply(text="No key, no problem.")]) as server:
        env = {"OPENAI_BASE_URL": server.base_url}
        done = cli("chat", "--user", "a", "--database", database, stdin="hello\n", env=env)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "No key, no problem.\n"


def test_lines_from_a_pipe_are_answered_one_by_one(cli: CommandLine, database: str) -> None:
    done = cli(
        "chat", "--user", "zoe", "--database", database, stdin="My name is Zoë\n\nwho am I?\n"
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Nice to meet you, Zoë!\nYour name is Zoë.\n"


def test_a_failed_run_in_a_pipe_is_told_by_the_exit_code(cli: CommandLine, database: str) -> None:
    with ScriptedOpenAI([Reply(status=401), Reply(text="Fine.")]) as server:
        done = cli("chat", "--user", "a", "--database", database, stdin="1\n2\n", env=_key(server))

    assert (done.returncode, done.stdout) == (1, "Fine.\n")
    assert done.stderr.startswith("error: ")


def test_sessions_are_conversations_of_their_own(cli: CommandLine, database: str) -> None:
    at_work = ("chat", "--user", "a", "--session", "work", "--database", database)
    cli(*at_work, stdin="call me Ann\n")

    assert cli(*at_work, stdin="who am I?\n").stdout == "Your name is Ann.\n"
    other = cli("chat", "--user", "a", "--database", database, stdin="who am I?\n")
    assert other.stdout == "You have not told me your name.\n"
