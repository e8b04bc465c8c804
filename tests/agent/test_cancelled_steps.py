"""A run is cancelled at each of its statements in turn: no step is ever stored by half."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.agent.events import RunCompleted
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from agno_sql.models.chat_model import ModelReply
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
    roles,
)
from tests.support.runner import LONG, Gate, WatchedLog, WatchedMemory, rows, until
from tests.support.statements import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agno_sql.agent.agent import Agent
    from agno_sql.runs import RunRecord

CLOSED = "RunCancelledError: the run ended during this call; whether the tool ran is unknown."
WHOLE = ["user", "assistant", "tool", "tool", "assistant"]

# How often the run is cancelled: a host that shuts down may do it again and again.
ONCE, AGAIN = "once", "at each statement from then on"


@contextmanager
def each_statement(then: Callable[[int], object]) -> Iterator[None]:
    """Tell *then* the number of each statement, from 0, before it reaches the database."""
    count = iter(range(1_000_000))
    with statements(lambda _: then(next(count))):
        yield


def agent_with_two_tools(memory: SQLMemory) -> Agent:
    async def quick() -> str:
        return "quick"

    async def slow() -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        return "slow"

    calls = asks(call("quick", "c1"), call("slow", "c2"), text="hm", usage=Usage(10, 5))
    model = ScriptedModel(calls, ModelReply("one two", usage=Usage(20, 7)))
    return agent_of(model, memory, tools=[quick, slow], lease=LONG)


async def cancel_at(n: int, how_often: str, memory: SQLMemory, user: str, way: str) -> bool:
    """Cancel a run of *user* at its statement number *n*; tell whether it had so many."""
    agent = agent_with_two_tools(memory)
    begun: Any = (
        agent.run("go", user, run_id="r-1")
        if way == "run"
        else events_of(agent.stream("go", user, run_id="r-1"))
    )
    task: asyncio.Task[Any] = asyncio.create_task(begun)
    was_reached = False

    def cancel(number: int) -> None:
        nonlocal was_reached
        was_reached |= number == n
        if number == n or (how_often == AGAIN and number > n):
            task.cancel()

    async with asyncio.timeout(DEADLINE_S):
        with each_statement(cancel):
            await asyncio.gather(task, return_exceptions=True)
    if not was_reached:
        told = await task
        output = told if way == "run" else told[-1].output
        assert isinstance(told[-1] if way == "stream" else RunCompleted(told), RunCompleted)
        assert (output.content, roles(output.messages)) == ("one two", WHOLE)
    elif way == "run":
        # A run that is cancelled before it ended never returns, nor raises something else.
        assert task.cancelled()
    else:
        # A stream is read from a queue: at the last statement, its reader may have got the end.
        assert task.cancelled() or isinstance((await task)[-1], RunCompleted)
    return was_reached


async def what_is_left(memory: SQLMemory, user: str) -> str:
    """Check that what a cancelled run stored is whole; return what became of it."""
    # Nothing has to expire before the next run, which goes first here: what was cancelled twice
    # may still be storing its end.
    async with asyncio.timeout(DEADLINE_S):
        next_run = agent_of(ScriptedModel("going on"), memory, busy_timeout=LONG)
        await next_run.run("and now?", user, run_id="r-2")
    stored = await memory.get_messages(user)
    assert [m.seq for m in stored] == list(range(1, len(stored) + 1))
    assert violation(as_wire(stored)) is None
    assert contents(stored[-2:]) == ["and now?", "going on"]
    turn = sorted((m for m in stored if m.run_id == "r-1"), key=lambda m: m.run_step or 0)
    assert len(turn) == len(stored) - 2
    assert [m.run_step for m in turn] == list(range(len(turn)))
    record = await memory.get_run("r-1", user)
    if record is None:
        assert turn == []
        return "unknown"
    check_record(record, turn)
    return record.status


def check_record(record: RunRecord, turn: list[Message]) -> None:
    assert record.status in ("completed", "cancelled")
    assert record.finished_at is not None
    results = contents(turn, "tool")
    for given, said in zip(results, ("quick", "slow"), strict=bool(results)):
        assert given in (said, CLOSED)
    if record.status == "completed":
        assert (roles(turn), record.error_type) == (WHOLE, None)
        assert results == ["quick", "slow"]
        assert record.usage == Usage(30, 12)
    else:
        assert roles(turn) in (WHOLE[:1], WHOLE[:4])
        assert record.error_type == "RunCancelledError"
        assert record.usage in (Usage(), Usage(10, 5), Usage(30, 12))


def has_come_to(seen: list[int], statements: int) -> bool:
    return len(seen) >= statements


@pytest.mark.guarantee("G40")
@pytest.mark.parametrize("how_often", [ONCE, AGAIN])
@pytest.mark.parametrize("way", ["run", "stream"])
async def test_cancelled_at_any_statement_a_run_is_stored_as_ended_and_the_next_works_at_once(
    database_url: str, way: str, how_often: str
) -> None:
    n, found = 0, set()
    async with SQLMemory.open(database_url, capacity=None) as memory:
        while await cancel_at(n, how_often, memory, f"user-{n}", way):
            found.add(await what_is_left(memory, f"user-{n}"))
            n += 1
        found.add(await what_is_left(memory, f"user-{n}"))
    assert n > 5, "there were statements to cancel at"
    assert found >= {"cancelled", "completed"}
    held = [row["run_id"] for row in rows(database_url, "conversations") if row["run_id"]]
    assert held == []


async def test_cancelled_before_it_began_a_run_is_not_known(database_url: str) -> None:
    async with SQLMemory.open(database_url) as memory:
        run = asyncio.create_task(agent_with_two_tools(memory).run("go", "alice", run_id="r-1"))
        await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        # As nobody knows it, its run_id is free to be used again.
        output = await agent_with_two_tools(memory).run("go", "alice", run_id="r-1")
        assert output.content == "one two"


@pytest.mark.guarantee("G40")
async def test_closed_after_any_event_a_stream_ends_its_run(database_url: str) -> None:
    """Whoever closes the generator need not wait: the run's end is stored when it is closed."""
    n, found = 0, []
    async with SQLMemory.open(database_url, capacity=None) as memory:
        while "completed" not in found:
            user = f"user-{n}"
            stream = agent_with_two_tools(memory).stream("go", user, run_id="r-1")
            async with asyncio.timeout(DEADLINE_S):
                async with aclosing(stream) as events:
                    for _ in range(n):
                        await anext(events)
                record = await memory.get_run("r-1", user)
                found.append(record.status if record else "unknown")
                assert await what_is_left(memory, user) == found[-1]
            n += 1
    # Nothing begins before it is read. A text and two calls are told before a result is stored;
    # behind them the run may be further than its reader.
    assert found[:4] == ["unknown", "cancelled", "cancelled", "cancelled"]
    assert set(found[4:]) <= {"cancelled", "completed"}


async def test_a_run_that_is_cancelled_where_it_waits_for_its_conversation_stores_nothing(
    database_url: str,
) -> None:
    async with (
        SQLMemory.open(database_url) as memory,
        SQLMemory.open(database_url) as another,
    ):
        entered, opened = asyncio.Event(), asyncio.Event()

        async def think(_: object) -> str:
            entered.set()
            await opened.wait()
            return "ok"

        holder = agent_of(ScriptedModel(think), memory, lease=LONG)
        first = asyncio.create_task(holder.run("held", "alice"))
        async with asyncio.timeout(DEADLINE_S):
            await entered.wait()
            # Here it looks for its run_id and waits its turn; there it tries, and asks again.
            for where, statements in ((memory, 1), (another, 10)):
                seen: list[int] = []
                with each_statement(seen.append):
                    waiting = asyncio.create_task(
                        agent_with_two_tools(where).run("me too", "alice", run_id="r-1")
                    )
                    await until(partial(has_come_to, seen, statements))
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert await where.get_run("r-1", "alice") is None
            opened.set()
            await first
            assert contents(await memory.get_messages("alice")) == ["held", "ok"]
            quick = agent_of(ScriptedModel("next"), another, busy_timeout=timedelta(0))
            assert (await quick.run("next", "alice")).content == "next"


class SlowlyClosing(WatchedLog):
    """A log that stores the end of a run only when it may."""

    def __init__(self, log: Any) -> None:
        super().__init__(log)
        self.closing, self.may_close = asyncio.Event(), asyncio.Event()

    async def close(self, *args: Any) -> None:
        self.closing.set()
        await self.may_close.wait()
        await self._log.close(*args)


async def test_cancelled_again_while_its_end_waits_for_the_database_a_run_still_stores_it(
    database_url: str,
) -> None:
    gate = Gate()
    async with SQLMemory.open(database_url) as opened:
        log = SlowlyClosing(opened.run_log)
        memory: Any = WatchedMemory(opened, log)
        agent = agent_of(ScriptedModel(gate.think), memory, lease=LONG)
        run = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            run.cancel()
            await log.closing.wait()
            for _ in range(3):
                run.cancel()
                await asyncio.sleep(0)
            assert not run.done()
            log.may_close.set()
            with pytest.raises(asyncio.CancelledError):
                await run
        record = await opened.get_run("r-1", "alice")
    assert record is not None
    assert record.status == "cancelled"


async def test_a_time_limit_of_the_host_stays_one_while_a_cancelled_run_stores_its_end(
    database_url: str,
) -> None:
    """What the run counted of its own cancellation is not left to the task that it ran in."""
    gate = Gate()
    limits: list[asyncio.Timeout] = []

    async def host(agent: Agent) -> None:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            await agent.run("go", "alice", run_id="r-1")

    async with SQLMemory.open(database_url) as opened:
        log = SlowlyClosing(opened.run_log)
        memory: Any = WatchedMemory(opened, log)
        agent = agent_of(ScriptedModel(gate.think), memory, lease=LONG)
        task = asyncio.create_task(host(agent))
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            assert await agent.cancel_run("r-1", "alice")
            await log.closing.wait()
            limits[0].reschedule(0)
            await until(limits[0].expired)
            log.may_close.set()
            await asyncio.wait([task])
        record = await opened.get_run("r-1", "alice")
    assert record is not None
    assert record.status == "cancelled"
    with pytest.raises(TimeoutError):
        await task
    assert task.cancelling() == 0
