"""Every query of docs/audit.md, as an administrator pastes it."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import make_url

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall
from tests.support.clock import FakeClock
from tests.support.postgres import CHECKOUT

NOW: Final = datetime.now(UTC)


@dataclass(frozen=True)
class Query:
    line: int
    database: str
    finds_faults: bool
    sql: str


def queries() -> list[Query]:
    page = (CHECKOUT / "docs" / "audit.md").read_text()
    found = []
    for match in re.finditer(r"```sql ?(\w*)\n(.*?)```", page, re.DOTALL):
        said_before = page[: match.start()].rstrip().splitlines()[-1]
        found.append(
            Query(
                line=page[: match.start()].count("\n") + 1,
                database=match[1],
                finds_faults="no rows when all is well" in said_before,
                sql=match[2],
            )
        )
    return found


def ask(url: str, sql: str) -> list[dict[str, Any]]:
    """Return what *sql* finds, asked by an administrator's own connection."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(parsed.database), isolation_level=None)) as file:
            cursor = file.execute(sql)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]
    plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True, row_factory=dict_row) as server:
        cursor_pg = server.execute(sql)
        return cursor_pg.fetchall() if cursor_pg.description else []


@pytest.mark.parametrize("query", queries(), ids=lambda query: f"line-{query.line}")
async def test_the_query_answers_on_the_databases_it_is_for(
    query: Query, database_url: str
) -> None:
    if query.database and not database_url.startswith(query.database):
        return  # it has a twin for this database
    await write_a_history(database_url)
    rows = ask(database_url, query.sql)
    assert bool(rows) is not query.finds_faults, rows


async def test_each_tool_call_is_told_with_its_own_result(database_url: str) -> None:
    """Ids repeat from round to round, and messages that were added by hand have no run."""
    called = ToolCall("call_0", "look_up", '{"order":1}')
    again = ToolCall("call_0", "look_up", '{"order":2}')
    other = ToolCall("call_1", "ring", "{}")

    def conversation(run: str | None) -> list[Message]:
        def calls(*tool_calls: ToolCall) -> Message:
            return Message(role="assistant", content="", tool_calls=tool_calls, run_id=run)

        def result(content: str, call: str) -> Message:
            return Message(role="tool", content=content, tool_call_id=call, run_id=run)

        return [
            calls(called),
            result("first", "call_0"),
            calls(again, other),
            result("rang", "call_1"),
            result("second", "call_0"),
            calls(other),
        ]

    async with SQLMemory.open(database_url, migrate=True) as memory:
        for session, run in (("a run", "run-1"), ("by hand", None)):
            await memory.extend(conversation(run), "alice", session_id=session)
            await memory.extend(conversation(run), "bob", session_id=session)
    (sql,) = (
        query.sql
        for query in queries()
        if "AS arguments" in query.sql and database_url.startswith(query.database)
    )
    assert [tuple(row.values()) for row in ask(database_url, sql)] == [
        (session, *told)
        for session in ("a run", "by hand")
        for told in (
            (1, "look_up", '{"order":1}', "first"),
            (3, "look_up", '{"order":2}', "second"),
            (3, "ring", "{}", "rang"),
            (6, "ring", "{}", None),
        )
    ]


async def test_the_integrity_queries_find_what_they_are_for(database_url: str) -> None:
    await write_a_history(database_url)
    faults = [query for query in queries() if query.finds_faults]
    assert len(faults) == 3
    ask(database_url, "DELETE FROM messages WHERE user_id = 'alice' AND seq = 2")
    for query in faults[:2]:
        sessions = {(row["user_id"], row["session_id"]) for row in ask(database_url, query.sql)}
        assert sessions == {("alice", "default"), ("alice", "old")}, query


async def test_the_views_count_what_is_stored(database_url: str) -> None:
    await write_a_history(database_url)
    (alice,) = ask(database_url, "SELECT * FROM tenant_activity WHERE user_id = 'alice'")
    days = ask(
        database_url, "SELECT * FROM tenant_daily_activity WHERE user_id = 'alice' ORDER BY day"
    )
    (cleared,) = ask(database_url, "SELECT * FROM tenant_activity WHERE user_id = 'cleared'")
    assert (alice["conversations"], alice["messages"]) == (2, 7)
    assert (alice["user_messages"], alice["assistant_messages"]) == (2, 3)
    assert (alice["tool_messages"], alice["system_messages"]) == (1, 1)
    texts = ["be kind", "My order is späť", "", "found", "It is on its way", "hi", "hello"]
    size_of_calls = alice["bytes"] - sum(len(text.encode()) for text in texts)
    # PostgreSQL orders the keys and spaces of JSON its own way.
    assert size_of_calls >= len('[{"id":"c1","name":"look_up_order","arguments":"{}"}]')
    assert [day["messages"] for day in days] == [2, 5]
    assert sum(day["bytes"] for day in days) == alice["bytes"]
    assert (cleared["conversations"], cleared["messages"], cleared["bytes"]) == (1, 0, 0)


async def write_a_history(url: str) -> None:
    """Alice has two sessions on two days, Bob has been away, one user was cleared."""
    clock = FakeClock(NOW - timedelta(days=40))
    async with SQLMemory.open(url, migrate=True, clock=clock) as memory:
        await memory.add(Message.user("bye"), "bob")
        await memory.extend(
            [Message.user("hi"), Message.assistant("hello")], "alice", session_id="old"
        )
        clock.advance(timedelta(days=40))
        run = "run-1"
        await memory.extend(
            [
                Message.system("be kind"),
                Message(role="user", content="My order is späť", run_id=run),
                Message(
                    role="assistant",
                    content="",
                    tool_calls=(ToolCall("c1", "look_up_order", "{}"),),
                    run_id=run,
                ),
                Message(role="tool", content="found", tool_call_id="c1", run_id=run),
                Message(role="assistant", content="It is on its way", run_id=run),
            ],
            "alice",
        )
        await memory.add(Message.user("x"), "cleared")
        await memory.clear("cleared")
