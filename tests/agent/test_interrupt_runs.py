"""A process that has to stop interrupts its runs, and another goes on with them at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from agno_sql.agent.events import RunFailed
from agno_sql.agent.tools import tool
from agno_sql.errors import RunInterruptedError
from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.sql import SQLMemory
from tests.agent.models import (
    DEADLINE_S,
    ScriptedModel,
    agent_of,
    asks,
    call,
    contents,
    events_of,
    roles,
)
from tests.support.runner import LONG, Gate

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any


async def at(gate: Gate, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Return *work* as a task that has come to *gate*."""
    task = asyncio.create_task(work)
    async with asyncio.timeout(DEADLINE_S):
        await gate.entered.wait()
    return task


@pytest.mark.guarantee("G65")
async def test_an_interrupted_run_is_gone_on_with_at_once_however_long_its_lease(
    database_url: str,
) -> None:
    gate, calls = Gate(), []

    @tool(idempotent=True)
    async def look_up() -> str:
        calls.append("look_up")
        return "found" if len(calls) > 1 else await gate.wait()

    async with SQLMemory.open(database_url) as ours, SQLMemory.open(database_url) as theirs:
        agent = agent_of(ScriptedModel(asks(call("look_up"))), ours, tools=[look_up], lease=LONG)
        run = await at(gate, agent.run("x", "alice", run_id="r-1"))
        assert agent.interrupt_runs() == 1
        with pytest.raises(RunInterruptedError, match="run_id"):
            await run
        assert gate.was_cancelled
        assert agent.interrupt_runs() == 0
        assert roles(await ours.get_messages("alice")) == ["user", "assistant"]

        other = agent_of(ScriptedModel("done"), theirs, tools=[look_up], lease=LONG)
        (output,) = await other.recover()
        assert (output.run_id, output.content) == ("r-1", "done")
        record = await theirs.get_run("r-1", "alice")
    assert record is not None
    assert (record.status, record.attempt) == ("completed", 2)


async def test_a_stream_tells_it_as_its_ending(database_url: str) -> None:
    gate = Gate()
    async with SQLMemory.open(database_url) as memory:
        agent = agent_of(ScriptedModel(gate.think), memory)
        reading = await at(gate, events_of(agent.stream("x", "alice", run_id="r-1")))
        agent.interrupt_runs()
        (told,) = await reading
        record = await memory.get_run("r-1", "alice")
    assert isinstance(told, RunFailed)
    assert isinstance(told.error, RunInterruptedError)
    assert told.error.retryable
    assert record is not None
    assert record.status == "running"


async def test_a_run_in_its_post_hook_is_interrupted_and_not_failed(database_url: str) -> None:
    gate = Gate()
    async with SQLMemory.open(database_url) as memory:
        agent = agent_of(ScriptedModel("no", "yes"), memory, post_hooks=[gate.think])
        run = await at(gate, agent.run("x", "alice", run_id="r-1"))
        agent.interrupt_runs()
        with pytest.raises(RunInterruptedError):
            await run
        gate.opened.set()
        assert (await agent.run("x", "alice", run_id="r-1")).content == "yes"


async def test_a_run_that_waits_for_its_turn_has_stored_nothing(database_url: str) -> None:
    gate = Gate()
    async with SQLMemory.open(database_url) as memory:
        agent = agent_of(ScriptedModel(gate.think), memory)
        runs = [await at(gate, agent.run("x", "alice", run_id="r-1"))]
        runs.append(asyncio.create_task(agent.run("y", "alice")))
        await asyncio.sleep(0)
        assert agent.interrupt_runs() == 2
        ended = await asyncio.gather(*runs, return_exceptions=True)
        assert [type(error) for error in ended] == [RunInterruptedError] * 2
        assert contents(await memory.get_messages("alice")) == ["x"]


async def test_runs_of_another_agent_go_on(database_url: str) -> None:
    gate = Gate()
    async with SQLMemory.open(database_url) as memory:
        one = agent_of(ScriptedModel(gate.think), memory, id="one")
        run = await at(gate, one.run("x", "alice"))
        assert agent_of(ScriptedModel(), memory, id="two").interrupt_runs() == 0
        gate.opened.set()
        assert (await run).content == "let go"


async def test_a_memory_without_a_log_ends_the_run_too() -> None:
    gate = Gate()
    agent = agent_of(ScriptedModel(gate.think, "on"), InMemory(), busy_timeout=timedelta(0))
    run = await at(gate, agent.run("x", "alice"))
    agent.interrupt_runs()
    with pytest.raises(RunInterruptedError):
        await run
    assert (await agent.run("y", "alice")).content == "on"
