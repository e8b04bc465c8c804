"""Cancelled runs: they end at once and leave a conversation that a provider accepts."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.agent.models import (
    DEADLINE_S,
    ScriptedModel,
    agent_of,
    asks,
    call,
    contents,
    events_of,
    refused_by_a_provider,
    roles,
)
from tests.support.statements import statements

if TYPE_CHECKING:
    from agno_sql.agent.agent import Agent
    from agno_sql.agent.context import HookInput
    from agno_sql.memory.protocol import Memory

# What a run of one round with two tools may have stored when it ends, at whatever point.
STAGES = [
    [],
    ["user"],
    ["user", "assistant", "tool", "tool"],
    ["user", "assistant", "tool", "tool", "assistant"],
]
CLOSED = "RunCancelledError: the run ended during this call; whether the tool ran is unknown."


class Stuck:
    """Something that never ends; tells when it was entered and when it was cancelled."""

    def __init__(self) -> None:
        self.entered, self.cancelled = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def cancel_when(entered: asyncio.Event, agent: Agent, *, stored: int = 0) -> None:
    """Cancel a run of alice's once *entered* is set and so much stored; it has to raise that."""
    run = asyncio.create_task(agent.run("go", "alice"))
    async with asyncio.timeout(DEADLINE_S):
        await entered.wait()
        while await agent.memory.size("alice") < stored:  # noqa: ASYNC110  (a memory sets no event)
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


async def test_cancelled_at_the_model_call_a_run_leaves_its_question() -> None:
    memory, stuck = InMemory(), Stuck()

    async def think(_: object) -> str:
        await stuck.wait()
        return "never"

    await cancel_when(stuck.entered, agent_of(ScriptedModel(think), memory))

    assert stuck.cancelled.is_set()
    assert contents(await memory.get_messages("alice")) == ["go"]
    assert await refused_by_a_provider(memory, "alice") is None


async def test_cancelled_in_a_tool_a_run_closes_its_call_and_keeps_the_other_results() -> None:
    memory, stuck = InMemory(), Stuck()

    def quick() -> str:
        return "quick"

    calls = asks(call("quick", "c1"), call("wait", "c2"), call("quick", "c3"))
    model = ScriptedModel(calls)
    agent = agent_of(model, memory, tools=[quick, stuck.wait])
    await cancel_when(stuck.entered, agent, stored=4)

    assert stuck.cancelled.is_set()
    assert len(model.shown) == 1
    stored = await memory.get_messages("alice")
    assert roles(stored) == ["user", "assistant", "tool", "tool", "tool"]
    results = {m.tool_call_id: m.content for m in stored[2:]}
    assert results == {"c1": "quick", "c2": CLOSED, "c3": "quick"}
    assert await refused_by_a_provider(memory, "alice") is None


async def test_earlier_rounds_of_a_cancelled_run_stay() -> None:
    memory, stuck = InMemory(), Stuck()

    def quick() -> str:
        return "quick"

    model = ScriptedModel(asks(call("quick")), asks(call("wait")))
    await cancel_when(stuck.entered, agent_of(model, memory, tools=[quick, stuck.wait]))

    assert contents(await memory.get_messages("alice")) == ["go", "", "quick", "", CLOSED]
    assert await refused_by_a_provider(memory, "alice") is None


async def test_cancelled_in_a_plain_tool_a_run_ends_at_once_and_the_result_comes_too_late() -> None:
    memory = InMemory()
    loop = asyncio.get_running_loop()
    entered, left, release = asyncio.Event(), asyncio.Event(), threading.Event()

    def block() -> str:
        loop.call_soon_threadsafe(entered.set)
        release.wait(timeout=20)
        loop.call_soon_threadsafe(left.set)
        return "too late"

    try:
        await cancel_when(
            entered, agent_of(ScriptedModel(asks(call("block"))), memory, tools=[block])
        )
        assert not left.is_set()
    finally:
        release.set()
        async with asyncio.timeout(DEADLINE_S):
            await left.wait()
    assert contents(await memory.get_messages("alice")) == ["go", "", CLOSED]


async def test_a_tool_that_ignores_its_cancellation_does_not_save_the_run() -> None:
    memory, entered = InMemory(), asyncio.Event()

    async def stubborn() -> str:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "I went on"
        return "never"

    async def fails_to_clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("could not clean up")

    calls = asks(call("stubborn", "c1"), call("fails_to_clean_up", "c2"))
    tools = [stubborn, fails_to_clean_up]
    model = ScriptedModel(calls)
    await cancel_when(entered, agent_of(model, memory, tools=tools))
    assert len(model.shown) == 1
    stored = await memory.get_messages("alice")
    assert roles(stored) == ["user", "assistant", "tool", "tool"]
    # What a tool still said is a result like any other.
    results = {m.tool_call_id: m.content for m in stored[2:]}
    assert results["c1"] in ("I went on", CLOSED)
    assert results["c2"] in ("ValueError: could not clean up", CLOSED)
    assert await refused_by_a_provider(memory, "alice") is None


@pytest.mark.parametrize("where, left", [("pre_hooks", []), ("post_hooks", ["go"])])
async def test_cancelled_in_a_hook_a_run_stores_nothing_more(where: str, left: list[str]) -> None:
    memory, stuck = InMemory(), Stuck()

    async def hook(_: HookInput) -> None:
        await stuck.wait()

    await cancel_when(stuck.entered, agent_of(ScriptedModel("unjudged"), memory, **{where: [hook]}))
    assert contents(await memory.get_messages("alice")) == left


async def test_one_of_two_runs_of_a_conversation_is_cancelled_alone() -> None:
    """The second waits for the first, and is served as soon as that is cancelled."""
    memory, stuck = InMemory(), Stuck()

    async def think(_: object) -> str:
        await stuck.wait()
        return "never"

    model = ScriptedModel(think, "ok")
    agent = agent_of(model, memory)
    first = asyncio.create_task(agent.run("one", "alice"))
    async with asyncio.timeout(DEADLINE_S):
        await stuck.entered.wait()
        second = asyncio.create_task(agent.run("two", "alice"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(model.shown) == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).content == "ok"
    assert contents(await memory.get_messages("alice")) == ["one", "two", "ok"]


def agent_with_two_tools(memory: Memory) -> Agent:
    async def pause() -> str:
        await asyncio.sleep(0)
        return "paused"

    async def think_about(shown: Any) -> Any:
        await asyncio.sleep(0)
        if shown[-1].role == "tool":
            return "one two"
        return asks(call("pause", "c1"), call("pause", "c2"), text="a moment")

    async def hook(_: HookInput) -> None:
        await asyncio.sleep(0)

    model = ScriptedModel(then=think_about)
    return agent_of(model, memory, tools=[pause], pre_hooks=[hook], post_hooks=[hook])


async def cancel_after(turns: int, memory: Memory, user: str, way: str) -> bool:
    """Cancel a run of *user* after so many turns of the loop; tell whether it was done by then."""
    agent = agent_with_two_tools(memory)
    begun = agent.run("go", user) if way == "run" else events_of(agent.stream("go", user))
    task: asyncio.Task[Any] = asyncio.create_task(begun)
    for _ in range(turns):
        await asyncio.sleep(0)
        if task.done():
            break
    if was_done := task.done():
        await task
    else:
        task.cancel()
        # It may have been past its last wait: then the answer is there, and so is the run's end.
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() or task.exception() is None
    return was_done


async def check_what_is_left(memory: Memory, user: str, *, done: bool) -> int:
    """Check that what a run stored is whole; return how far it came."""
    stored = await memory.get_messages(user)
    assert roles(stored) in STAGES
    assert await refused_by_a_provider(memory, user) is None
    stage = STAGES.index(roles(stored))
    assert stage == len(STAGES) - 1 or not done, "a run that ended well stored its answer"
    return stage


@pytest.mark.guarantee("G26")
@pytest.mark.parametrize("way", ["run", "stream"])
async def test_cancelled_at_any_turn_of_the_loop_a_run_leaves_a_whole_history(way: str) -> None:
    memory, stages, done, turns = InMemory(), set(), False, 0
    while not done:
        done = await cancel_after(turns, memory, f"user-{turns}", way)
        stages.add(await check_what_is_left(memory, f"user-{turns}", done=done))
        turns += 1
    assert stages == {0, 1, 2, 3}, "every point between two steps was cancelled"


@pytest.mark.guarantee("G26")
@pytest.mark.parametrize("way", ["run", "stream"])
async def test_cancelled_at_any_turn_a_run_leaves_a_database_that_goes_on(
    database_url: str, way: str
) -> None:
    """As above, but a write under way may be cancelled at any point of its transaction."""
    stages, done, turns = set(), False, 0
    async with SQLMemory.open(database_url) as memory:
        while not done:
            user = f"user-{turns}"
            async with asyncio.timeout(DEADLINE_S):  # no lock may outlive the run that took it
                done = await cancel_after(turns, memory, user, way)
                stages.add(await check_what_is_left(memory, user, done=done))
            turns += 1 + turns // 8
    assert {0, len(STAGES) - 1} < stages, "runs were cancelled early, late and in between"


@pytest.mark.parametrize(
    "statement", ["BEGIN IMMEDIATE", "INSERT INTO conversations", "INSERT INTO messages", "SELECT"]
)
async def test_cancelled_within_a_statement_a_run_leaves_no_lock_behind(
    database_url: str, statement: str
) -> None:
    async with SQLMemory.open(database_url) as memory:
        await memory.add(Message.user("hi"), "bob")

        def cancel(sql: str) -> None:
            if statement in sql:
                run.cancel()

        with statements(cancel):
            run = asyncio.create_task(agent_of(ScriptedModel("ok"), memory).run("go", "alice"))
            await asyncio.gather(run, return_exceptions=True)
        is_used = statement != "BEGIN IMMEDIATE" or "sqlite" in database_url
        assert run.cancelled() == is_used

        async with asyncio.timeout(DEADLINE_S):
            await memory.add(Message.user("still there?"), "bob")
            assert await refused_by_a_provider(memory, "alice") is None
