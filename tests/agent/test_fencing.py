"""Whoever lost a run can't write to it, and whoever holds one keeps it as long as it lives."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.agent.tool_calls import INTERRUPTED_RESULT
from agno_sql.errors import ConversationBusyError, RunLostError, StoreUnavailableError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.agent.models import (
    DEADLINE_S,
    ScriptedModel,
    agent_of,
    asks,
    call,
    contents,
    refused_by_a_provider,
    roles,
)
from tests.support.clock import FakeClock
from tests.support.runner import (
    LONG,
    Gate,
    Job,
    WatchedLog,
    WatchedMemory,
    everything,
    later,
    rows,
    runner,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agno_sql.runs import Lease, Renewal

NOT_AT_ALL = timedelta(0)
SHORT = timedelta(seconds=0.3)


async def work() -> str:
    return "not by this process"


class TestAFrozenProcess:
    """It stood still in a tool for longer than its lease, and does not know that yet."""

    @pytest.mark.guarantee("G31")
    @pytest.mark.parametrize("taken_by", ["the same run_id", "a new run"])
    async def test_writes_nothing_more_once_another_took_its_run(
        self, database_url: str, taken_by: str
    ) -> None:
        # Its lease is long, so that no heartbeat tells it: what refuses is the fence. For the
        # others, whose clock is ahead, the lease has expired.
        async with (
            SQLMemory.open(database_url, capacity=None, clock=later()) as memory,
            runner(Job(url=database_url)) as frozen,
        ):
            await frozen.says("working")
            frozen.freeze()

            model = ScriptedModel(then="by another")
            agent = agent_of(model, memory, tools=[work], lease=LONG, busy_timeout=NOT_AT_ALL)
            async with asyncio.timeout(DEADLINE_S):
                if taken_by == "the same run_id":
                    output = await agent.run("go", "alice", run_id="r-1")
                    results = contents(output.messages, "tool")
                    assert results == [INTERRUPTED_RESULT]
                else:
                    await agent.run("next", "alice", run_id="r-2")
                    closed = await memory.get_run("r-1", "alice")
                    assert closed is not None
                    assert (closed.status, closed.error_type) == ("failed", "RunInterruptedError")
            before = everything(database_url)
            assert "by another" in contents(await memory.get_messages("alice"))

            frozen.thaw()
            frozen.go_on()
            ended = await frozen.ends()
            assert ended.how == "RunLostError"
            assert "r-1" in ended.content
            assert everything(database_url) == before
            assert await refused_by_a_provider(memory, "alice") is None

    async def test_does_no_harm_to_a_run_that_is_at_work_in_its_place(
        self, database_url: str
    ) -> None:
        gate = Gate()
        async with (
            SQLMemory.open(database_url, capacity=None, clock=later()) as memory,
            runner(Job(url=database_url)) as frozen,
        ):
            await frozen.says("working")
            frozen.freeze()
            agent = agent_of(ScriptedModel(gate.think), memory, tools=[work], lease=LONG)
            resumed = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
            async with asyncio.timeout(DEADLINE_S):
                await gate.entered.wait()
            before = everything(database_url)

            frozen.thaw()
            frozen.go_on()
            assert (await frozen.ends()).how == "RunLostError"
            assert everything(database_url) == before

            gate.opened.set()
            async with asyncio.timeout(DEADLINE_S):
                output = await resumed
            assert contents(output.messages) == ["go", "", INTERRUPTED_RESULT, "let go"]
            record = await memory.get_run("r-1", "alice")
            assert record is not None
            assert (record.status, record.attempt) == ("completed", 2)

    async def test_is_told_by_its_heartbeat_that_it_lost_its_run(self, database_url: str) -> None:
        """By real clocks: the lease expires while it stands still, and its tool never returns."""
        async with (
            SQLMemory.open(database_url, capacity=None) as memory,
            runner(Job(url=database_url, lease_s=1.5)) as frozen,
        ):
            await frozen.says("working")
            # Right after a heartbeat it is in no transaction, which would lock an SQLite file.
            await frozen.says("renewed")
            frozen.freeze()
            agent = agent_of(ScriptedModel("by another"), memory, tools=[work], lease=LONG)
            async with asyncio.timeout(3 * DEADLINE_S):
                output = await agent.run("go", "alice", run_id="r-1")
            assert contents(output.messages) == ["go", "", INTERRUPTED_RESULT, "by another"]
            before = everything(database_url)

            frozen.thaw()
            ended = await frozen.ends()
            assert (ended.how, ended.cancelling) == ("RunLostError", 0)
            assert everything(database_url) == before


class TestAHeartbeat:
    @pytest.mark.guarantee("G32")
    async def test_keeps_a_run_whose_model_takes_many_leases(self, database_url: str) -> None:
        """The clock of the leases is the test's, so no slow machine makes one expire."""
        clock, gate = FakeClock(), Gate()
        async with (
            SQLMemory.open(database_url, clock=clock) as memory,
            SQLMemory.open(database_url, clock=clock) as another,
        ):
            agent = agent_of(ScriptedModel(gate.think), memory, lease=SHORT)
            run = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
            async with asyncio.timeout(DEADLINE_S):
                await gate.entered.wait()
            model = ScriptedModel()
            waiting = agent_of(model, another, busy_timeout=NOT_AT_ALL)
            began = clock.now()
            while clock.now() < began + 5 * SHORT:
                now = clock.advance(SHORT * 0.8)
                await until_leased(database_url, now + SHORT)
                for run_id in ("r-1", "r-2"):
                    with pytest.raises(ConversationBusyError):
                        await waiting.run("go", "alice", run_id=run_id)
            gate.opened.set()
            async with asyncio.timeout(DEADLINE_S):
                assert (await run).content == "let go"
            record = await memory.get_run("r-1", "alice")
        assert record is not None
        assert (record.status, record.attempt) == ("completed", 1)
        assert model.shown == []

    async def test_that_fails_does_not_end_the_run(
        self, database_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock, gate = FakeClock(), Gate()

        class FailingLog(WatchedLog):
            failures = 0

            async def renew(self, leases: list[Lease]) -> Renewal:
                if self.failures < 3:
                    self.failures += 1
                    raise StoreUnavailableError("the database went away")
                renewal: Renewal = await self._log.renew(leases)
                return renewal

        async with SQLMemory.open(database_url, clock=clock) as opened:
            log = FailingLog(opened.run_log)
            memory: Any = WatchedMemory(opened, log)
            agent = agent_of(ScriptedModel(gate.think), memory, lease=SHORT)
            with caplog.at_level(logging.WARNING, "agno_sql"):
                run = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
                await until(lambda: log.failures == 3)
                assert not run.done()
                # The next one that works extends the lease again.
                await until_leased(database_url, clock.advance(SHORT) + SHORT)
            gate.opened.set()
            async with asyncio.timeout(DEADLINE_S):
                assert (await run).content == "let go"
        warnings = [r for r in caplog.records if "the database went away" in r.getMessage()]
        assert len(warnings) == 3

    async def test_that_comes_too_late_takes_nothing_back_from_who_took_over(
        self, database_url: str
    ) -> None:
        clock, gate, others = FakeClock(), Gate(), Gate()
        async with (
            SQLMemory.open(database_url, clock=clock) as memory,
            SQLMemory.open(database_url, clock=later()) as another,
        ):
            lost = asyncio.create_task(
                agent_of(ScriptedModel(gate.think), memory, lease=SHORT).run(
                    "go", "alice", run_id="r-1"
                )
            )
            async with asyncio.timeout(DEADLINE_S):
                await gate.entered.wait()
                agent = agent_of(ScriptedModel(others.think), another, lease=LONG)
                run = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
                await others.entered.wait()
                with pytest.raises(RunLostError):
                    await lost
                assert gate.was_cancelled
                others.opened.set()
                assert (await run).content == "let go"
            assert roles(await memory.get_messages("alice")) == ["user", "assistant"]

    async def test_ends_a_lost_run_whose_tool_ignores_that_it_was_cancelled(
        self, database_url: str
    ) -> None:
        gate = Gate()

        async def stubborn() -> str:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                return "cleaned up"
            return "never"

        async with SQLMemory.open(database_url) as memory:
            model = ScriptedModel(asks(call("stubborn")))
            agent = agent_of(model, memory, tools=[stubborn], lease=SHORT)
            run = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
            async with asyncio.timeout(DEADLINE_S):
                await gate.entered.wait()
                await memory.erase("alice")
                with pytest.raises(RunLostError):
                    await run
            assert run.cancelling() == 0, "the task that ran it may go on"
            assert await memory.size("alice") == 0

    async def test_does_not_take_a_run_that_has_just_ended_for_a_lost_one(
        self, database_url: str
    ) -> None:
        """A commit's acknowledgement may take long: the heartbeat may see it before the run."""

        class LateLog(WatchedLog):
            beats = 0

            async def complete(self, *args: Any, **options: Any) -> Message:
                stored: Message = await self._log.complete(*args, **options)
                seen = self.beats
                await until(lambda: self.beats >= seen + 2)
                return stored

            async def renew(self, leases: list[Lease]) -> Renewal:
                renewal: Renewal = await self._log.renew(leases)
                self.beats += 1
                return renewal

        async with SQLMemory.open(database_url) as opened:
            memory: Any = WatchedMemory(opened, LateLog(opened.run_log))
            agent = agent_of(ScriptedModel("ok"), memory, lease=SHORT)
            output = await agent.run("go", "alice", run_id="r-1")
        assert contents(output.messages) == ["go", "ok"]


async def until_leased(url: str, expires_at: datetime) -> None:
    """Return when the stored lease of the only conversation lasts until *expires_at*."""

    def is_extended() -> bool:
        (conversation,) = rows(url, "conversations")
        stored = conversation["lease_expires_at"]
        if isinstance(stored, str):  # SQLite's text, always in UTC
            return stored[:26] == expires_at.strftime("%Y-%m-%d %H:%M:%S.%f")
        assert isinstance(stored, datetime)
        return stored == expires_at

    await until(is_extended)


class TestARunOfAnIdThatWasUsedBefore:
    """A fencing token is no number: one that counts would begin anew after a clean-up."""

    @pytest.mark.guarantee("G31")
    @pytest.mark.parametrize("still_at_work", [True, False])
    @pytest.mark.parametrize("how", ["clear", "erase", "clear_all"])
    async def test_is_safe_from_its_old_holder(
        self, database_url: str, how: str, *, still_at_work: bool
    ) -> None:
        old_gate, gate = Gate(), Gate()
        async with (
            SQLMemory.open(database_url) as memory,
            SQLMemory.open(database_url) as another,
        ):
            calls = asks(call("wait"))
            old = agent_of(ScriptedModel(calls), memory, tools=[old_gate.wait], lease=LONG)
            lost = asyncio.create_task(old.run("go", "alice", run_id="r-1"))
            async with asyncio.timeout(DEADLINE_S):
                await old_gate.entered.wait()
                await cleaned(how, another)
            # The new run is where the old one was: same run_id, same steps, same attempt.
            model = ScriptedModel(calls, "new")
            agent = agent_of(model, another, tools=[gate.wait], lease=LONG, busy_timeout=NOT_AT_ALL)
            run = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
            async with asyncio.timeout(DEADLINE_S):
                await gate.entered.wait()
                if not still_at_work:
                    gate.opened.set()
                    await run
                before = everything(database_url)
                old_gate.opened.set()
                with pytest.raises(RunLostError):
                    await lost
                assert everything(database_url) == before
                gate.opened.set()
                output = await run
            assert contents(output.messages) == ["go", "", "let go", "new"]
            assert await another.get_messages("alice") == list(output.messages)


async def cleaned(how: str, memory: SQLMemory) -> None:
    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "clear": lambda: memory.clear("alice"),
        "erase": lambda: memory.erase("alice"),
        "clear_all": memory.clear_all,
    }
    await ways[how]()


async def test_plain_messages_never_wait_for_a_run_and_do_not_break_it(
    database_url: str,
) -> None:
    gate = Gate()
    async with (
        SQLMemory.open(database_url, capacity=None) as memory,
        SQLMemory.open(database_url, capacity=None) as another,
    ):
        model = ScriptedModel(asks(call("wait")), "done")
        agent = agent_of(model, memory, tools=[gate.wait], lease=LONG)
        run = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            await memory.add(Message.user("by the way"), "alice")
            # A message may even claim to be of the run: it has no step, so it is not its.
            claims = Message(role="user", content="I am r-1", run_id="r-1")
            await another.extend([claims, Message.assistant("noted")], "alice")
            assert not run.done()
            gate.opened.set()
            output = await run
        assert contents(output.messages) == ["go", "", "let go", "done"]
        assert contents(model.shown[1]) == ["go", "", "let go"]
        stored = await another.get_messages("alice")
        assert [(m.seq, m.content) for m in stored] == [
            *((1, "go"), (2, ""), (3, "by the way"), (4, "I am r-1"), (5, "noted")),
            *((6, "let go"), (7, "done")),
        ]
        again = await agent.run("go", "alice", run_id="r-1")
        assert again == output
        assert await refused_by_a_provider(memory, "alice") is None
