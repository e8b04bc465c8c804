"""At most one run works in a conversation; the others wait, and hold nothing meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.ext.asyncio import create_async_engine

from agno_sql.agent.events import RunFailed
from agno_sql.errors import ConversationBusyError
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
    refused_by_a_provider,
    roles,
)
from tests.support.runner import (
    LONG,
    Alone,
    Gate,
    Job,
    WatchedLog,
    WatchedMemory,
    everything,
    runner,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from agno_sql.agent.agent import Agent
    from agno_sql.memory.protocol import Memory
    from agno_sql.message import Message

NOT_AT_ALL = timedelta(0)
SHORT = timedelta(seconds=0.05)
DEADLINE = timedelta(seconds=DEADLINE_S)


@pytest.fixture(
    params=[
        pytest.param((url, several), id=f"{several} on {database}")
        for url, database in (("sqlite_url", "sqlite"), ("postgres_url", "postgres18"))
        for several in ("one memory", "two memories")
    ]
    + [pytest.param(None, id="one in memory")]
)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Memory, Memory]]:
    """Two agents' memories that hold the same conversations."""
    if request.param is None:
        memory: Memory = InMemory(capacity=None)
        yield memory, memory
        return
    fixture, several = request.param
    url: str = request.getfixturevalue(fixture)
    async with SQLMemory.open(url, capacity=None) as one:
        if several == "one memory":
            yield one, one
            return
        async with SQLMemory.open(url, capacity=None) as other:
            yield one, other


async def held(agent: Agent, gate: Gate, text: str = "held", **options: Any) -> asyncio.Task[Any]:
    """Return a run of alice's that has come to *gate*."""
    run = asyncio.create_task(agent.run(text, "alice", **options))
    async with asyncio.timeout(DEADLINE_S):
        await gate.entered.wait()
    return run


async def let_go(gate: Gate, *runs: asyncio.Task[Any]) -> list[Any]:
    """Open *gate* and return what *runs* return."""
    gate.opened.set()
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.gather(*runs)


@pytest.mark.guarantee("G28")
async def test_runs_of_one_conversation_never_overlap(pair: tuple[Memory, Memory]) -> None:
    """20 runs of two agents; each is a round of two tools and two model calls."""
    alone = Alone()

    async def work(name: str) -> str:
        async with alone.at_work(name):
            return f"worked for {name}"

    async def think(shown: Sequence[Message]) -> Any:
        asked = next(m.content for m in reversed(shown) if m.role == "user")
        async with alone.at_work(asked):
            if shown[-1].role == "tool":
                return f"{shown[-2].content}, {shown[-1].content}"
            return asks(call("work", "c1", name=asked), call("work", "c2", name=asked))

    agents = [agent_of(ScriptedModel(then=think), each, tools=[work], lease=LONG) for each in pair]
    names = [f"run-{n}" for n in range(20)]
    async with asyncio.timeout(3 * DEADLINE_S):
        outputs = await asyncio.gather(
            *(agents[n % 2].run(name, "alice", run_id=name) for n, name in enumerate(names))
        )

    assert alone.most == 1
    assert [output.content for output in outputs] == [
        f"worked for {name}, worked for {name}" for name in names
    ]
    stored = await pair[0].get_messages("alice")
    assert len(stored) == 5 * len(names)
    for start in range(0, len(stored), 5):  # one after another, none within another
        turn = stored[start : start + 5]
        assert roles(turn) == ["user", "assistant", "tool", "tool", "assistant"]
        assert {m.run_id for m in turn} == {turn[0].content}
    assert await refused_by_a_provider(pair[1], "alice") is None


@pytest.mark.guarantee("G28")
async def test_runs_of_many_processes_never_overlap(database_url: str, tmp_path: Path) -> None:
    """Each process finds a file if another one is in its model or its tool at the same time."""
    async with SQLMemory.open(database_url) as memory:
        jobs = [
            Job(
                url=database_url,
                run_id=f"p{n}",
                runs=5,
                waits=False,
                alone=str(tmp_path / "at-work"),
            )
            for n in range(3)
        ]
        async with AsyncExitStack() as stack:
            runners = [await stack.enter_async_context(runner(job)) for job in jobs]
            said = await asyncio.gather(*(each.says("ended ") for each in runners))
        stored = await memory.get_messages("alice")

    for lines in said:
        assert [line for line in lines if line.startswith(("asked", "working", "overlap"))] == [
            *["asked", "working", "asked"] * 5
        ]
        assert '"completed"' in lines[-1]
    assert len(stored) == 3 * 5 * 4
    turns = [stored[start : start + 4] for start in range(0, len(stored), 4)]
    assert all(len({m.run_id for m in turn}) == 1 for turn in turns)
    order = [str(turn[0].run_id) for turn in turns]
    assert sorted(order) == sorted(f"p{n}-{m}" for n in range(3) for m in range(5))


@pytest.mark.guarantee("G28")
async def test_runs_of_one_process_are_served_first_come_first_served(
    database_url: str,
) -> None:
    gate = Gate()
    async with SQLMemory.open(database_url, capacity=None) as memory:
        model = ScriptedModel(gate.think, then="ok")
        agent = agent_of(model, memory, lease=LONG)
        runs = [await held(agent, gate)]
        for n in range(10):
            runs.append(asyncio.create_task(agent.run(f"waiting {n}", "alice")))
            await asyncio.sleep(0)
        runs[4].cancel()  # one that gives up costs nobody his place
        await asyncio.gather(runs[4], return_exceptions=True)
        assert runs[4].cancelled()
        assert len(model.shown) == 1

        gate.opened.set()
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*runs, return_exceptions=True)
        asked = contents(await memory.get_messages("alice"), "user")
    assert asked == ["held", *(f"waiting {n}" for n in range(10) if n != 3)]
    assert [shown[-1].content for shown in model.shown] == asked


async def test_one_task_of_a_process_asks_the_database_whether_a_conversation_is_free(
    database_url: str,
) -> None:
    """What waits for another process costs a conversation one poller, however many wait."""
    gate = Gate()

    class CountingLog(WatchedLog):
        polls = 0
        pollers: set[object]

        async def begin(self, *args: Any, **options: Any) -> Any:
            self.pollers.add(asyncio.current_task())
            return await self._log.begin(*args, **options)

        async def is_free(self, *key: str) -> bool:
            self.pollers.add(asyncio.current_task())
            self.polls += 1
            free: bool = await self._log.is_free(*key)
            return free

    async with (
        SQLMemory.open(database_url, capacity=None) as theirs,
        SQLMemory.open(database_url, capacity=None) as ours,
    ):
        first = await held(agent_of(ScriptedModel(gate.think), theirs, lease=LONG), gate)
        log = CountingLog(ours.run_log)
        log.pollers = set()
        memory: Any = WatchedMemory(ours, log)
        model = ScriptedModel(then="ok")
        agent = agent_of(model, memory, lease=LONG)
        runs = [asyncio.create_task(agent.run(f"{n}", "alice")) for n in range(10)]
        await until(lambda: log.polls >= 4)
        assert log.pollers == {runs[0]}
        assert model.shown == []

        await let_go(gate, first, *runs)
        assert log.pollers == set(runs)
        asked = contents(await theirs.get_messages("alice"), "user")
    assert asked == ["held", *(f"{n}" for n in range(10))]


class TestABusyConversation:
    """What waited in vain asked no model and stored nothing."""

    @pytest.mark.guarantee("G30")
    @pytest.mark.parametrize("within", [NOT_AT_ALL, SHORT])
    @pytest.mark.parametrize("way", ["run", "stream"])
    async def test_is_told_before_any_model_call(
        self, pair: tuple[Memory, Memory], within: timedelta, way: str
    ) -> None:
        gate, model = Gate(), ScriptedModel()
        holder = agent_of(ScriptedModel(gate.think), pair[0], lease=LONG)
        first = await held(holder, gate)
        before = await pair[0].get_messages("alice")
        waiting = agent_of(model, pair[1], lease=LONG, busy_timeout=within)

        async with asyncio.timeout(DEADLINE_S):
            if way == "run":
                with pytest.raises(ConversationBusyError, match="'alice'") as caught:
                    await waiting.run("me too", "alice", run_id="r-2")
                error: BaseException = caught.value
            else:
                (told,) = await events_of(waiting.stream("me too", "alice", run_id="r-2"))
                assert isinstance(told, RunFailed)
                error = told.error
        assert isinstance(error, ConversationBusyError)
        assert error.retryable
        assert model.shown == []
        assert await pair[0].get_messages("alice") == before

        (output,) = await let_go(gate, first)
        assert output.content == "let go"
        assert contents(await pair[1].get_messages("alice")) == ["held", "let go"]

    @pytest.mark.guarantee("G30")
    async def test_stores_nothing_of_who_waited_in_vain(self, database_url: str) -> None:
        gate = Gate()
        async with (
            SQLMemory.open(database_url) as theirs,
            SQLMemory.open(database_url) as ours,
        ):
            first = await held(agent_of(ScriptedModel(gate.think), theirs, lease=LONG), gate)
            before = everything(database_url)
            for within in (NOT_AT_ALL, SHORT):
                agent = agent_of(ScriptedModel(), ours, busy_timeout=within)
                with pytest.raises(ConversationBusyError):
                    await agent.run("me too", "alice", run_id="r-2")
            assert everything(database_url) == before
            assert await ours.get_run("r-2", "alice") is None
            await let_go(gate, first)

            # It may be repeated with the same run_id, as nothing was stored under it.
            agent = agent_of(ScriptedModel("now"), ours, busy_timeout=NOT_AT_ALL)
            output = await agent.run("me too", "alice", run_id="r-2")
            assert output.content == "now"

    async def test_is_free_at_once_when_its_run_has_failed(
        self, pair: tuple[Memory, Memory]
    ) -> None:
        gate = Gate()

        async def fail(_: object) -> str:
            await gate.wait()
            raise ValueError("broken")

        first = await held(agent_of(ScriptedModel(fail), pair[0], lease=LONG), gate)
        waiting = agent_of(ScriptedModel("ok"), pair[1], lease=LONG, busy_timeout=DEADLINE)
        second = asyncio.create_task(waiting.run("next", "alice"))
        gate.opened.set()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ValueError, match="broken"):
                await first
            assert (await second).content == "ok"


@pytest.mark.guarantee("G29")
async def test_runs_of_other_conversations_never_wait(pair: tuple[Memory, Memory]) -> None:
    gate = Gate()
    first = await held(agent_of(ScriptedModel(gate.think), pair[0], lease=LONG), gate)
    others = [("bob", "default"), ("alice", "other"), ("default", "alice")]
    for memory in pair:
        agent = agent_of(ScriptedModel(then="ok"), memory, lease=LONG, busy_timeout=NOT_AT_ALL)
        for user, session in others:
            async with asyncio.timeout(DEADLINE_S):
                output = await agent.run("quick", user, session_id=session)
            assert output.content == "ok"
    assert not first.done()
    await let_go(gate, first)


@pytest.mark.guarantee("G29")
async def test_runs_that_wait_for_their_model_hold_no_connection(database_url: str) -> None:
    """500 users at once on a pool of five connections."""
    many = 500
    arrived, all_here, gate = [0], asyncio.Event(), Gate()

    async def think(shown: Sequence[Message]) -> str:
        arrived[0] += 1
        if arrived[0] == many:
            all_here.set()
        await gate.wait()
        return f"answer to {shown[-1].content}"

    async with SQLMemory.open(database_url):
        pass
    engine = create_async_engine(
        database_url, poolclass=AsyncAdaptedQueuePool, pool_size=5, max_overflow=0
    )
    try:
        memory = SQLMemory(engine)
        agent = agent_of(ScriptedModel(then=think), memory, lease=LONG)
        runs = [asyncio.create_task(agent.run(f"q{n}", f"user-{n}")) for n in range(many)]
        async with asyncio.timeout(6 * DEADLINE_S):
            await all_here.wait()
            assert isinstance(engine.pool, AsyncAdaptedQueuePool)
            assert engine.pool.checkedout() == 0
            # A connection is there for whoever needs one.
            assert contents(await memory.get_messages("user-0")) == ["q0"]
            gate.opened.set()
            outputs = await asyncio.gather(*runs)
        assert engine.pool.checkedout() == 0
    finally:
        await engine.dispose()
    assert [output.content for output in outputs] == [f"answer to q{n}" for n in range(many)]
