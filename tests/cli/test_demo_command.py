from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import make_url

from agno_sql.testing import Reply, ScriptedOpenAI
from tests.cli.conftest import BIN

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine

A_PASSWORD = uuid4().hex


def test_each_user_is_remembered_by_a_second_process_and_only_as_themselves(
    cli: CommandLine,
) -> None:
    done = cli("demo")

    assert done.returncode == 0, done.stdout + done.stderr
    first, second, stored = re.split(r" [123]  (?=This|A second|What is)", done.stdout)[1:]
    assert "My name is Alice." in first
    assert "My name is Bob." in first
    assert re.search(r"alice +What's my name\? +\n +assistant +Your name is Alice\.", second)
    assert re.search(r"bob +What's my name\? +\n +assistant +Your name is Bob\.", second)
    pids = [re.search(r"\((\d+)\)", part) for part in (first, second)]
    assert None not in pids
    assert len({pid[1] for pid in pids if pid}) == 2
    heading, header, *rows = [
        line.split() for line in stored.splitlines() if re.search(r"\w", line)
    ]
    assert re.fullmatch("What is stored in session demo-[0-9a-f]{8}", " ".join(heading))
    assert header == ["user_id", "seq", "role", "content", "created_at"]
    assert [row[:3] for row in rows[:8]] == [
        [user, str(seq), ("assistant", "user")[seq % 2]]
        for user in ("alice", "bob")
        for seq in (1, 2, 3, 4)
    ], "one line each"
    assert "no AI" in stored
    assert str(cli.folder / "agno_sql_demo.db") in stored


def test_a_second_demo_run_erases_nothing(cli: CommandLine) -> None:
    assert cli("demo").returncode == 0
    assert cli("demo").returncode == 0

    with closing(sqlite3.connect(cli.folder / "agno_sql_demo.db")) as connection:
        rows = connection.execute(
            "SELECT user_id, session_id, message_count FROM conversations ORDER BY user_id"
        ).fetchall()
    assert [(user, count) for user, _, count in rows] == [("alice", 4)] * 2 + [("bob", 4)] * 2
    assert len({session for _, session, _ in rows}) == 2


def _printed_commands(output: str) -> list[str]:
    return [line.strip() for line in output.partition("Try next:")[2].splitlines() if line.strip()]


def test_the_printed_commands_work_when_pasted(cli: CommandLine) -> None:
    demo = cli("demo", "--database", "sqlite:///alice's & bob's $HOME.db")
    assert demo.returncode == 0, demo.stderr

    chat, history = _printed_commands(demo.stdout)

    path = cli.env["PATH"]
    assert chat.startswith("agno-sql chat --user alice")
    asked = cli.shell(chat, stdin="What's my name?\n", path=path)
    assert (asked.stdout, asked.returncode) == ("Your name is Alice.\n", 0)
    shown = cli.shell(history, path=path)
    assert "Your name is Bob." in shown.stdout
    assert shown.returncode == 0


def test_the_printed_commands_work_where_the_program_is_not_on_the_path(cli: CommandLine) -> None:
    cli.env["PATH"] = "/usr/bin:/bin"
    demo = cli("demo")

    _, history = _printed_commands(demo.stdout)

    assert history.startswith(str(BIN / "agno-sql"))
    assert "Your name is Bob." in cli.shell(history, path="/usr/bin:/bin").stdout


def test_a_stray_module_in_the_current_folder_does_not_break_the_second_process(
    cli: CommandLine,
) -> None:
    (cli.folder / "sqlalchemy.py").write_text("raise SystemExit('the wrong sqlalchemy')")

    assert cli("demo").returncode == 0


def _reply_like_a_model(body: dict[str, Any]) -> Reply:
    said = " ".join(message["content"] for message in body["messages"])
    found = re.search(r"My name is (\w+)", said)
    return Reply(text=f"You are {found[1]}!" if found else "I do not know.")


def test_with_a_key_the_real_model_answers_and_is_named(cli: CommandLine) -> None:
    with ScriptedOpenAI(_reply_like_a_model) as server:
        env = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "a-key-of-the-test"}
        done = cli("demo", env={**env, "AGNO_SQL_MODEL": "model-of-the-test"})

    assert done.returncode == 0, done.stdout + done.stderr
    assert "model-of-the-test" in done.stdout
    assert "no AI" not in done.stdout
    assert len(server.requests) == 4


def test_a_model_that_mixes_the_users_up_makes_the_demo_fail(cli: CommandLine) -> None:
    with ScriptedOpenAI(lambda _: Reply(text="You are Alice or Bob.")) as server:
        done = cli("demo", env={"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "a-key"})

    assert done.returncode == 1
    assert "Wrong" in done.stdout


def test_a_failure_in_the_second_process_is_told(cli: CommandLine) -> None:
    replies = [Reply(text="Hello."), Reply(text="Hello."), Reply(status=401)]
    with ScriptedOpenAI(replies) as server:
        done = cli("demo", env={"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "a-key"})

    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "second process" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_runs_on_postgresql_and_prints_no_password(
    cli: CommandLine, postgres_url: str
) -> None:
    url = make_url(postgres_url).set(password=A_PASSWORD).render_as_string(hide_password=False)

    done = cli("demo", "--database", url)

    assert done.returncode == 0, done.stdout + done.stderr
    assert A_PASSWORD not in done.stdout + done.stderr
    _, chat, history = _printed_commands(done.stdout)
    cli.env["AGNO_SQL_DATABASE_URL"] = url
    asked = cli.shell(chat, stdin="What's my name?\n", path=cli.env["PATH"])
    assert asked.stdout == "Your name is Alice.\n"
    assert "Your name is Bob." in cli.shell(history, path=cli.env["PATH"]).stdout


def test_a_postgresql_database_without_tables_is_not_touched(
    cli: CommandLine, empty_postgres_url: str
) -> None:
    done = cli("demo", "--database", empty_postgres_url)

    assert done.returncode == 1
    assert "agno-sql db upgrade" in done.stderr
    assert cli("db", "current", "--database", empty_postgres_url).stdout.startswith("none")


def test_a_database_in_memory_is_refused(cli: CommandLine) -> None:
    done = cli("demo", "--database", "sqlite://")

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")


def test_demo_json_of_history_holds_the_whole_story(cli: CommandLine) -> None:
    demo = cli("demo")
    _, history = _printed_commands(demo.stdout)

    shown = cli.shell(f"{history} --json", path=cli.env["PATH"])

    assert [(m["seq"], m["role"], m["content"]) for m in json.loads(shown.stdout)] == [
        (1, "user", "My name is Bob."),
        (2, "assistant", "Nice to meet you, Bob!"),
        (3, "user", "What's my name?"),
        (4, "assistant", "Your name is Bob."),
    ]
