"""Databases for the doctor: whole ones, and the way to break them."""

from __future__ import annotations

import sqlite3
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy import make_url

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.runs import Lease, NewRun, RunKey
from agno_sql.store.database import Database
from agno_sql.store.doctor import Finding, examine
from agno_sql.store.engine import open_engine
from tests.agent.models import ScriptedModel, agent_of, asks, call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime

    from agno_sql.memory.run_log import RunLog
    from tests.support.clock import FakeClock

LEASE: Final = timedelta(seconds=15)

Place = dict[str, Any]


def plant(url: str, *statements: str) -> None:
    """Execute *statements* by a connection that no foreign key holds back."""
    with _connected(url) as connection:
        for statement in statements:
            connection.execute(statement)


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of *query*, which need not keep to a user."""
    with _connected(url) as connection:
        return list(connection.execute(query).fetchall())


@contextmanager
def _connected(url: str) -> Iterator[Any]:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(parsed.database))) as file, file:
            yield file
        return
    plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as server:
        server.execute("SET session_replication_role = replica")
        yield server


@asynccontextmanager
async def tables(url: str) -> AsyncIterator[Database]:
    engine = open_engine(url)
    try:
        yield Database(engine)
    finally:
        await engine.dispose()


async def findings(url: str, *, now: datetime) -> list[Finding]:
    async with tables(url) as database, aclosing(examine(database, now=now)) as found:
        return [finding async for finding in found]


def places(found: list[Finding]) -> list[Place]:
    """Return where *found* are, without what explains them."""
    return [
        {
            name: value
            for name in ("check", "user_id", "session_id", "seq", "run_id")
            if (value := getattr(finding, name)) is not None
        }
        for finding in found
    ]


async def look(order: int) -> str:
    return f"order {order} is on its way"


async def begin_a_run(log: RunLog, user: str, run_id: str) -> Lease:
    """Do what a process does that dies while its run's tool is called."""
    key = RunKey(user, "default", run_id)
    lease = Lease(key, "f" * 32, LEASE)
    asked = Message(role="user", content="Where is it?", run_id=run_id, run_step=0)
    begun = await log.begin(
        lease, NewRun(agent_id="tester", model="scripted-1", input=asked), limit=None
    )
    assert begun is not None
    wanted = (call("look", order=7),)
    calls = Message(role="assistant", content="", run_id=run_id, run_step=1, tool_calls=wanted)
    await log.append(lease, calls)
    return lease


async def write_two_conversations(url: str, clock: FakeClock) -> None:
    """Alice's is one run that has ended, seq 2 to 5; Bob's is one at work, seq 1 and 2."""
    async with SQLMemory.open(url, migrate=True, clock=clock) as memory:
        await memory.add(Message.system("be kind"), "alice")
        model = ScriptedModel(asks(call("look", order=1)), "It is on its way.")
        await agent_of(model, memory, tools=[look]).run("Where is it?", "alice", run_id="r1")
        await begin_a_run(memory.run_log, "bob", "r2")
