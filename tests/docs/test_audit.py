"""Every query of docs/audit.md, as an administrator pastes it."""

from __future__ import annotations

import asyncio
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

from agno_sql.errors import MaxLoopsError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.models.chat_model import ModelReply
from agno_sql.runs import Lease, NewRun, RunKey
from agno_sql.store import migrate
from agno_sql.store.database import Database
from agno_sql.store.engine import open_engine
from tests.agent.models import ScriptedModel, agent_of, asks, call
from tests.support.clock import FakeClock
from tests.support.postgres import CHECKOUT

NOW: Final = datetime.now(UTC)
HOUR: Final = timedelta(hours=1)
VIEWS: Final = ("tenant_activity", "tenant_daily_activity")


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
    assert cost(alice) == {"runs": 1, "failed_runs": 0, "cancelled_runs": 0, "tokens": (30, 8)}
    texts = ["be kind", "My order is späť", "", "found", "It is on its way", "hi", "hello"]
    size_of_calls = alice["bytes"] - sum(len(text.encode()) for text in texts)
    # PostgreSQL orders the keys and spaces of JSON its own way.
    assert size_of_calls >= len('[{"id":"c1","name":"look_up_order","arguments":"{}"}]')
    assert [day["messages"] for day in days] == [2, 5]
    assert sum(day["bytes"] for day in days) == alice["bytes"]
    assert [cost(day)["tokens"] for day in days] == [(0, 0), (30, 8)]
    assert (cleared["conversations"], cleared["messages"], cleared["bytes"]) == (1, 0, 0)
    assert cost(cleared) == {"runs": 0, "failed_runs": 0, "cancelled_runs": 0, "tokens": (0, 0)}
    failing = "SELECT * FROM {} WHERE user_id = 'carl'"
    for view in VIEWS:
        (carl,) = ask(database_url, failing.format(view))
        # The answer that was not stored was paid for too.
        assert cost(carl) == {"runs": 3, "failed_runs": 1, "cancelled_runs": 1, "tokens": (6, 2)}


async def test_a_day_whose_messages_are_pruned_keeps_its_runs(database_url: str) -> None:
    clock = FakeClock(datetime(2026, 3, 1, 23, 59, tzinfo=UTC))

    def past_midnight(_: object) -> ModelReply:
        clock.advance(timedelta(minutes=2))
        return ModelReply("good night", usage=Usage(5, 1))

    async with SQLMemory.open(database_url, migrate=True, clock=clock, capacity=1) as memory:
        await agent_of(ScriptedModel(past_midnight), memory, lease=HOUR).run("hello?", "alice")
    days = ask(database_url, "SELECT * FROM tenant_daily_activity ORDER BY day")
    told = [(str(day["day"]), day["conversations"], day["messages"], day["runs"]) for day in days]
    assert told == [("2026-03-01", 0, 0, 1), ("2026-03-02", 1, 1, 0)]
    assert [day["input_tokens"] for day in days] == [5, 0]
    assert str(days[0]["first_activity"]).startswith("2026-03-01 23:59")


async def test_runs_at_work_are_told_apart_from_interrupted_ones(database_url: str) -> None:
    await write_a_history(database_url)
    (sql,) = (
        query.sql
        for query in queries()
        if "AS state" in query.sql and database_url.startswith(query.database)
    )
    told = [(row["user_id"], row["run_id"], row["state"]) for row in ask(database_url, sql)]
    assert told == [("bob", "run-0", "interrupted"), ("carl", "run-4", "at work")]


async def test_the_views_lose_and_regain_what_they_tell_of_runs(database_url: str) -> None:
    await write_a_history(database_url)
    before = told_by_the_views(database_url)
    of_runs = {"runs", "failed_runs", "cancelled_runs", "input_tokens", "output_tokens"}
    engine = open_engine(database_url)
    database = Database(engine)

    await database.write(lambda conn: migrate.downgrade(conn, "0003"))
    without_runs = told_by_the_views(database_url)
    await database.write(migrate.upgrade)

    await engine.dispose()
    assert told_by_the_views(database_url) == before
    assert without_runs == [
        [{name: told for name, told in row.items() if name not in of_runs} for row in rows]
        for rows in before
    ]


async def test_the_upgrade_keeps_what_was_granted_on_the_views(empty_postgres_url: str) -> None:
    engine = open_engine(empty_postgres_url)
    database = Database(engine)
    await database.write(lambda conn: migrate.upgrade(conn, "0003"))
    for view in VIEWS:
        ask(empty_postgres_url, f"GRANT SELECT ON {view} TO PUBLIC")

    await database.write(migrate.upgrade)

    await engine.dispose()
    granted = ask(
        empty_postgres_url,
        "SELECT table_name FROM information_schema.role_table_grants"
        " WHERE grantee = 'PUBLIC' AND table_name LIKE 'tenant_%' ORDER BY 1",
    )
    assert [row["table_name"] for row in granted] == sorted(VIEWS)


def told_by_the_views(url: str) -> list[list[dict[str, Any]]]:
    return [
        sorted(ask(url, f"SELECT * FROM {view}"), key=lambda row: [*map(str, row.values())])
        for view in VIEWS
    ]


def cost(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a row of a view tells of runs."""
    counts = {name: row[name] for name in ("runs", "failed_runs", "cancelled_runs")}
    return counts | {"tokens": (row["input_tokens"], row["output_tokens"])}


async def write_a_history(url: str) -> None:
    """Alice has two sessions on two days, Bob has been away, one user was cleared.

    Alice's second session is a run with a tool. Bob's run is interrupted; of Carl's one failed, one
    was cancelled, and one is at work.
    """
    clock = FakeClock(NOW - timedelta(days=40))
    async with SQLMemory.open(url, migrate=True, clock=clock) as memory:
        await begin_a_run(memory, "bob", "run-0")
        await memory.extend(
            [Message.user("hi"), Message.assistant("hello")], "alice", session_id="old"
        )
        clock.advance(timedelta(days=40))
        await memory.add(Message.system("be kind"), "alice")
        model = ScriptedModel(
            asks(call("look_up_order"), usage=Usage(10, 3)),
            ModelReply("It is on its way", usage=Usage(20, 5)),
        )
        agent = agent_of(model, memory, tools=[look_up_order])
        await agent.run("My order is späť", "alice", run_id="run-1")
        await write_carls_runs(memory)
        await memory.add(Message.user("x"), "cleared")
        await memory.clear("cleared")


async def write_carls_runs(memory: SQLMemory) -> None:
    cost = Usage(6, 2)
    agent = agent_of(ScriptedModel(asks(call("look_up_order"), usage=cost)), memory, max_loops=1)
    with pytest.raises(MaxLoopsError):
        await agent.run("where is it?", "carl", run_id="run-2")
    with pytest.raises(asyncio.CancelledError):
        await agent_of(ScriptedModel(asyncio.CancelledError()), memory).run("?", "carl")
    await begin_a_run(memory, "carl", "run-4")


async def begin_a_run(memory: SQLMemory, user: str, run_id: str) -> None:
    """Begin a run and leave it at that, as a process does that dies."""
    lease = Lease(RunKey(user, "default", run_id), "f" * 32, HOUR)
    asked = Message(role="user", content="bye", run_id=run_id, run_step=0)
    new = NewRun(agent_id="shop", model="scripted-1", input=asked)
    assert await memory.run_log.begin(lease, new, limit=None)


def look_up_order() -> str:
    return "found"
