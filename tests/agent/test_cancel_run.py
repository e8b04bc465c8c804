"""What ends a run from outside: cancel_run, a time limit, and the deletion of its conversation."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.agent.events import RunFailed
from agno_sql.errors import RunCancelledError, RunFailedError, RunLostError, RunTimeoutError
from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.runs import Lease, NewRun, RunKey
from agno_sql.testing.wire_rules import violation
from tests.agent.models import (
    DEADLINE_S,
    ScriptedModel,
    agent_of,
    as_wire,
    asks,
    call,
    contents,
    events_of,
    refused_by_a_provider,
    roles,
)
from tests.support.clock import FakeClock
from tests.support.runner import LONG, Gate, Job, everything, rows, runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agno_sql.agent.agent import Agent
    from agno_sql.memory.protocol import Memory

NOT_AT_ALL = timedelta(0)
SHORT = timedelta(seconds=0.3)
CLOSED = "the run ended during this call; whether the tool ran is unknown."


@pytest.fixture
async def memory(database_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url, capacity=None) as opened:
        yield opened


def quick() -> str:
    return "quick"


PLACES = ["model", "tool", "post hook"]


def agent_held_at(place: str, gate: Gate, memory: Memory, **parts: Any) -> Agent:
    """Return an agent that stays at *gate*: in its second model call, a tool or a post hook."""
    calls = [call("quick", "c1")] + ([call("wait", "c2")] if place == "tool" else [])
    answer: Any = gate.think if place == "model" else "answer"
    model = ScriptedModel(asks(*calls), answer)
    hooks = [gate.think] if place == "post hook" else []
    return agent_of(
        model, memory, tools=[quick, gate.wait], post_hooks=hooks, **{"lease": LONG, **parts}
    )


async def held(gate: Gate, agent: Agent, user: str = "alice", **options: Any) -> asyncio.Task[Any]:
    """Return a run of *user* that has come to *gate* and has stored all that came before."""
    run = asyncio.create_task(agent.run("go", user, run_id="r-1", **options))
    await come_to(gate, agent.memory, user)
    return run


async def come_to(gate: Gate, memory: Memory, user: str = "alice") -> None:
    async with asyncio.timeout(DEADLINE_S):
        await gate.entered.wait()
        while await memory.size(user) < 3:  # noqa: ASYNC110  (a database sets no event)
            await asyncio.sleep(0.005)


async def ended(run: asyncio.Task[Any]) -> BaseException | None:
    """Return what ended *run*, by itself and soon."""
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.wait([run])
    assert run.done()
    return run.exception()


async def check_is_closed(
    memory: SQLMemory, status: str, error_type: str, user: str = "alice"
) -> list[Message]:
    """Check that run "r-1" has ended so, with closed calls, and that the next one works at once."""
    record = await memory.get_run("r-1", user)
    assert record is not None
    assert (record.status, record.error_type) == (status, error_type)
    assert record.finished_at is not None
    stored = await memory.get_messages(user)
    assert violation(as_wire(stored)) is None
    agent = agent_of(ScriptedModel("next"), memory, busy_timeout=NOT_AT_ALL)
    async with asyncio.timeout(DEADLINE_S):
        assert (await agent.run("next", user)).content == "next"
    return stored


async def interrupted_run(memory: SQLMemory, clock: FakeClock) -> None:
    """Leave what a process leaves that died in a tool call of "r-1"; its lease has expired."""
    key = RunKey("alice", "default", "r-1")
    lease = Lease(key, "0" * 32, LONG)
    question = Message(role="user", content="go", run_id="r-1", run_step=0)
    new = NewRun(agent_id="tester", model="scripted-1", input=question)
    assert await memory.run_log.begin(lease, new, limit=None) is not None
    wanted = Message(
        role="assistant", content="", run_id="r-1", run_step=1, tool_calls=(call("quick"),)
    )
    await memory.run_log.append(lease, wanted)
    clock.advance(LONG)


class TestCancelRun:
    @pytest.mark.guarantee("G41")
    @pytest.mark.parametrize("place", PLACES)
    async def test_acts_at_once_in_this_process(self, memory: SQLMemory, place: str) -> None:
        """The lease is an hour long: no heartbeat is waited for."""
        gate, cancelling = Gate(), list[int]()
        agent = agent_held_at(place, gate, memory)

        async def host() -> None:
            try:
                await agent.run("go", "alice", run_id="r-1")
            finally:
                task = asyncio.current_task()
                assert task is not None
                cancelling.append(task.cancelling())

        run = asyncio.create_task(host())
        await come_to(gate, memory)
        async with asyncio.timeout(DEADLINE_S):
            assert await agent.cancel_run("r-1", "alice") is True
        error = await ended(run)
        assert isinstance(error, RunCancelledError)
        assert "r-1" in str(error)
        assert gate.was_cancelled
        assert cancelling == [0], "the task that ran it is not cancelled itself"

        stored = await check_is_closed(memory, "cancelled", "RunCancelledError")
        closed = [f"RunCancelledError: {CLOSED}"] if place == "tool" else []
        assert contents(stored) == ["go", "", "quick", *closed]

    async def test_does_not_wait_for_a_plain_tool(self, memory: SQLMemory) -> None:
        loop, entered, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def block() -> str:
            loop.call_soon_threadsafe(entered.set)
            release.wait(timeout=20)
            return "too late"

        agent = agent_of(ScriptedModel(asks(call("block"))), memory, tools=[block], lease=LONG)
        run = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
        try:
            async with asyncio.timeout(DEADLINE_S):
                await entered.wait()
                assert await agent.cancel_run("r-1", "alice")
            assert isinstance(await ended(run), RunCancelledError)
        finally:
            release.set()
        stored = await check_is_closed(memory, "cancelled", "RunCancelledError")
        assert contents(stored, "tool") == [f"RunCancelledError: {CLOSED}"]

    async def test_is_told_as_the_last_event_of_a_stream(self, memory: SQLMemory) -> None:
        gate = Gate()
        agent = agent_held_at("tool", gate, memory)
        reader = asyncio.create_task(events_of(agent.stream("go", "alice", run_id="r-1")))
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            assert await agent.cancel_run("r-1", "alice")
            told = await reader
        assert isinstance(told[-1], RunFailed)
        assert isinstance(told[-1].error, RunCancelledError)
        await check_is_closed(memory, "cancelled", "RunCancelledError")

    async def test_works_without_a_database_too(self) -> None:
        memory, gate = InMemory(), Gate()
        agent = agent_held_at("tool", gate, memory)
        run = await held(gate, agent)
        assert await agent.cancel_run("r-1", "bob") is False
        assert await agent_of(ScriptedModel(), memory).cancel_run("r-1", "alice") is True
        assert isinstance(await ended(run), RunCancelledError)
        assert roles(await memory.get_messages("alice")) == ["user", "assistant", "tool", "tool"]
        assert await agent.cancel_run("r-1", "alice") is False
        assert await refused_by_a_provider(memory, "alice") is None

    @pytest.mark.guarantee("G41")
    @pytest.mark.parametrize("has_tool", [True, False])
    async def test_of_a_run_in_another_process_ends_it_at_its_next_heartbeat(
        self, database_url: str, memory: SQLMemory, *, has_tool: bool
    ) -> None:
        async with runner(Job(url=database_url, lease_s=3, has_tool=has_tool)) as process:
            await process.says("working" if has_tool else "asked")
            assert await agent_of(ScriptedModel(), memory).cancel_run("r-1", "alice") is True
            how = await process.ends()
        assert (how.how, how.cancelling) == ("RunCancelledError", 0)
        stored = await check_is_closed(memory, "cancelled", "RunCancelledError")
        closed = ["", f"RunCancelledError: {CLOSED}"] if has_tool else []
        assert contents(stored) == ["go", *closed]
        record = await memory.get_run("r-1", "alice")
        assert record is not None
        assert record.cancel_requested_at is not None

    async def test_does_not_take_the_callers_own_cancellation_for_its_own(
        self, memory: SQLMemory
    ) -> None:
        """Both at one moment: the host wants its task to end, so it is cancelled."""
        gate = Gate()
        agent = agent_held_at("tool", gate, memory)
        run = await held(gate, agent)
        assert await agent.cancel_run("r-1", "alice")
        async with asyncio.timeout(DEADLINE_S):
            while not run.cancelling():  # its end is not stored yet: that takes many turns
                assert not run.done()
                await asyncio.sleep(0)
        run.cancel()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(asyncio.CancelledError):
                await run
        await check_is_closed(memory, "cancelled", "RunCancelledError")

    async def test_of_what_is_not_at_work_changes_nothing(
        self, database_url: str, memory: SQLMemory
    ) -> None:
        for run_id, answer in (("done", "ok"), ("failed", ValueError("broken"))):
            agent = agent_of(ScriptedModel(answer), memory)
            run = agent.run("go", "alice", run_id=run_id)
            await asyncio.gather(run, return_exceptions=True)
        before = everything(database_url)
        for run_id in ("done", "failed", "unknown"):
            assert await agent.cancel_run(run_id, "alice") is False
        assert await agent.cancel_run("done", "nobody") is False
        assert everything(database_url) == before

    async def test_of_another_conversation_does_not_touch_a_run(
        self, database_url: str, memory: SQLMemory
    ) -> None:
        gate = Gate()
        agent = agent_held_at("tool", gate, memory)
        run = await held(gate, agent)
        before = everything(database_url)
        assert await agent.cancel_run("r-1", "bob") is False
        assert await agent.cancel_run("r-1", "alice", session_id="other") is False
        assert await agent.cancel_run("r-2", "alice") is False
        # Only what was stored is compared: each of them also renews this process's leases.
        after = everything(database_url)
        assert (after["messages"], after["runs"]) == (before["messages"], before["runs"])
        gate.opened.set()
        assert await ended(run) is None

    @pytest.mark.guarantee("G41")
    async def test_closes_an_interrupted_run(self, database_url: str) -> None:
        clock = FakeClock()
        async with SQLMemory.open(database_url, clock=clock) as memory:
            await interrupted_run(memory, clock)
            agent = agent_of(ScriptedModel(), memory, tools=[quick])
            assert await agent.cancel_run("r-1", "alice") is True
            assert await agent.cancel_run("r-1", "alice") is False
            with pytest.raises(RunCancelledError):
                await agent.run("go", "alice", run_id="r-1")
            stored = await check_is_closed(memory, "cancelled", "RunCancelledError")
        assert contents(stored) == ["go", "", f"RunCancelledError: {CLOSED}"]

    async def test_of_a_process_that_dies_before_it_looks_is_not_forgotten(
        self, database_url: str
    ) -> None:
        clock = FakeClock()
        async with SQLMemory.open(database_url, clock=clock) as memory:
            await interrupted_run(memory, clock)
            clock.advance(-LONG)  # as long as it still lived
            agent = agent_of(ScriptedModel(), memory, tools=[quick])
            assert await agent.cancel_run("r-1", "alice") is True
            clock.advance(LONG)
            with pytest.raises(RunCancelledError):
                await agent.run("go", "alice", run_id="r-1")
            await check_is_closed(memory, "cancelled", "RunCancelledError")


def deletions(memory: SQLMemory) -> dict[str, Callable[[], Any]]:
    return {
        "clear": lambda: memory.clear("alice"),
        "clear_all": memory.clear_all,
        "erase": lambda: memory.erase("alice"),
        "delete_inactive": lambda: memory.delete_inactive(timedelta(0)),
    }


@pytest.mark.parametrize("how", ["clear", "clear_all", "erase", "delete_inactive"])
class TestADeletedConversation:
    @pytest.mark.guarantee("G42")
    @pytest.mark.parametrize("place", PLACES)
    async def test_ends_its_run_at_the_next_write_and_nothing_comes_back(
        self, database_url: str, memory: SQLMemory, how: str, place: str
    ) -> None:
        gate = Gate()
        run = await held(gate, agent_held_at(place, gate, memory))
        async with asyncio.timeout(DEADLINE_S):
            await deletions(memory)[how]()
        gate.opened.set()
        error = await ended(run)
        assert isinstance(error, RunLostError)
        assert "r-1" in str(error)
        assert rows(database_url, "messages") == rows(database_url, "runs") == []
        left = rows(database_url, "conversations")
        assert [row["message_count"] for row in left] == ([0] if how == "clear" else [])
        assert await memory.get_run("r-1", "alice") is None

        agent = agent_of(ScriptedModel("new"), memory, busy_timeout=NOT_AT_ALL)
        output = await agent.run("go", "alice", run_id="r-1")
        assert contents(await memory.get_messages("alice")) == ["go", "new"]
        assert output.messages[0].seq == (4 if how == "clear" else 1)

    async def test_is_free_for_another_run_while_the_lost_one_has_not_noticed(
        self, database_url: str, memory: SQLMemory, how: str
    ) -> None:
        gate = Gate()
        async with SQLMemory.open(database_url) as another:
            run = await held(gate, agent_held_at("tool", gate, memory))
            await deletions(another)[how]()
            agent = agent_of(ScriptedModel("new"), another, busy_timeout=NOT_AT_ALL)
            await agent.run("anew", "alice", run_id="r-2")
            before = everything(database_url)
            gate.opened.set()
            assert isinstance(await ended(run), RunLostError)
            assert everything(database_url) == before
            assert contents(await another.get_messages("alice")) == ["anew", "new"]

    async def test_is_noticed_by_the_heartbeat_of_a_run_that_writes_nothing(
        self, database_url: str, memory: SQLMemory, how: str
    ) -> None:
        gate = Gate()
        run = await held(gate, agent_held_at("model", gate, memory, lease=SHORT))
        await deletions(memory)[how]()
        assert isinstance(await ended(run), RunLostError)
        assert gate.was_cancelled
        assert run.cancelling() == 0
        assert rows(database_url, "messages") == rows(database_url, "runs") == []


class TestATimeLimit:
    async def test_stores_a_failed_run_with_closed_calls(self, memory: SQLMemory) -> None:
        gates = {place: Gate() for place in PLACES}
        # Long enough for the statements before: a run that is slower does not come to its gate.
        limit = timedelta(seconds=2)
        runs = await asyncio.gather(
            *(
                held(gate, agent_held_at(place, gate, memory), place, timeout=limit)
                for place, gate in gates.items()
            )
        )
        for place, run in zip(PLACES, runs, strict=True):
            error = await ended(run)
            assert isinstance(error, RunTimeoutError)
            stored = await check_is_closed(memory, "failed", "RunTimeoutError", place)
            closed = [f"RunTimeoutError: {CLOSED}"] if place == "tool" else []
            assert contents(stored) == ["go", "", "quick", *closed]
            with pytest.raises(RunFailedError) as caught:
                await agent_of(ScriptedModel(), memory).run("go", place, run_id="r-1")
            assert caught.value.error_type == "RunTimeoutError"

    async def test_holds_for_who_waits_for_the_conversation_too(
        self, database_url: str, memory: SQLMemory
    ) -> None:
        gate = Gate()
        run = await held(gate, agent_held_at("model", gate, memory))
        before = everything(database_url)
        async with SQLMemory.open(database_url) as another:
            for where in (memory, another):
                agent = agent_of(ScriptedModel(), where, busy_timeout=LONG)
                with pytest.raises(RunTimeoutError):
                    await agent.run("go", "alice", run_id="r-2", timeout=SHORT)
        assert everything(database_url) == before
        gate.opened.set()
        assert await ended(run) is None
