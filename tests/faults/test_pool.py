"""A pool without a free connection."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from agno_sql.errors import StoreUnavailableError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.agent.models import ScriptedModel, agent_of, asks, call, contents
from tests.faults.checks import assert_answered, assert_numbered, runs_in, without_leaks
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


@pytest.fixture
async def one_connection(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A caller's engine with a single connection, which is soon given up waiting for."""
    async with SQLMemory.open(database_url):
        pass
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    async with without_leaks(engine, database_url):
        yield engine


async def test_without_a_free_connection_everything_is_unavailable_and_works_afterwards(
    one_connection: AsyncEngine,
) -> None:
    memory = SQLMemory(one_connection)
    model = ScriptedModel(then="done")
    agent = agent_of(model, memory)
    async with one_connection.connect():
        with pytest.raises(StoreUnavailableError) as caught:
            await memory.add(Message.user("lost"), "alice")
        assert caught.value.retryable
        with pytest.raises(StoreUnavailableError):
            await memory.get_messages("alice")
        with pytest.raises(StoreUnavailableError):
            await agent.run("lost", "alice")
    assert not model.shown
    assert (await memory.add(Message.user("hello"), "alice")).seq == 1
    assert (await agent.run("hi", "alice")).content == "done"
    assert contents(await memory.get_messages("alice")) == ["hello", "hi", "done"]


async def test_a_run_that_lost_the_only_connection_goes_on_when_it_is_asked_for_again(
    one_connection: AsyncEngine,
) -> None:
    clock = FakeClock()
    memory = SQLMemory(one_connection, clock=clock)
    taken: list[AsyncConnection] = []

    async def take_it() -> str:
        taken.append(await one_connection.connect())
        return "taken"

    model = ScriptedModel(asks(call("take_it")), then="done")
    agent = agent_of(model, memory, tools=[take_it])
    try:
        with pytest.raises(StoreUnavailableError):
            await agent.run("hi", "alice", run_id="r")
    finally:
        await taken[0].close()
    clock.advance(agent.lease + timedelta(seconds=1))

    assert (await agent.run("hi", "alice", run_id="r")).content == "done"
    assert len(taken) == 1
    stored = await memory.get_messages("alice")
    assert [m.role for m in stored] == ["user", "assistant", "tool", "assistant"]
    assert_numbered(stored)
    assert_answered(runs_in(stored)["r"])
