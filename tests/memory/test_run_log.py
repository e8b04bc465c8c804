"""The run logs themselves, where an agent's runs do not lead."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from agno_sql.agent.agent import Agent
from agno_sql.errors import (
    BadReplyError,
    CorruptRecordError,
    InvalidOptionError,
    RunCancelledError,
    RunLostError,
    StoreUnavailableError,
)
from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.live import LiveRuns
from agno_sql.memory.sql import SQLMemory
from agno_sql.memory.volatile import VolatileRunLog, run_log_of
from agno_sql.message import Message, Usage
from agno_sql.runs import Ending, Lease, NewRun, Renewal, RunKey
from agno_sql.store.engine import open_engine
from tests.agent.models import DEADLINE_S, ScriptedModel, agent_of, asks, call, contents, roles
from tests.support.clock import FakeClock
from tests.support.statements import statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from agno_sql.errors import RunError

FAILED = Ending(status="failed", error_type="ValueError", error_message="")


def lease_of(run_id: str = "r", user: str = "alice", seconds: float = 15.0) -> Lease:
    return Lease(RunKey(user, "default", run_id), uuid4().hex, timedelta(seconds=seconds))


def new_run(text: str = "go") -> NewRun:
    question = Message(role="user", content=text, run_id="r", run_step=0)
    return NewRun(agent_id="tester", model="m", input=question)


@pytest.fixture
async def memory(way: str, database_url: str, clock: FakeClock) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url, clock=clock) as opened:
        yield opened


class TestAnInterruptedRun:
    async def test_is_not_taken_over_for_another_input(
        self, memory: SQLMemory, clock: FakeClock
    ) -> None:
        """Two processes gave one run_id, and the first of them died."""
        assert await memory.run_log.begin(lease_of(), new_run(), limit=None) is not None
        clock.advance(timedelta(minutes=1))
        assert await memory.run_log.begin(lease_of(), new_run("stop"), limit=None) is None
        begun = await memory.run_log.begin(lease_of(), new_run(), limit=None)
        assert begun is not None
        assert contents(begun.turn) == ["go"]

    async def test_whose_row_cannot_be_decoded_is_named_and_closed(
        self, database_url: str, memory: SQLMemory, clock: FakeClock
    ) -> None:
        await memory.run_log.begin(lease_of(), new_run(), limit=None)
        engine = open_engine(database_url)
        async with engine.begin() as conn:
            await conn.execute(
                text("UPDATE runs SET model = :broken WHERE user_id = 'alice'"), {"broken": "\x10?"}
            )
        await engine.dispose()
        with pytest.raises(CorruptRecordError, match=r"run r of user 'alice'"):
            await memory.get_run("r", "alice")

        clock.advance(timedelta(minutes=1))
        assert await agent_of(ScriptedModel(), memory).recover() == []
        assert await memory.run_log.is_free("alice", "default")
        assert (await agent_of(ScriptedModel("ok"), memory).run("next", "alice")).content == "ok"

    async def test_does_not_take_copies_of_its_messages_for_its_own(
        self, memory: SQLMemory, clock: FakeClock
    ) -> None:
        async def copy() -> str:
            await memory.extend(await memory.get_messages("alice"), "alice")
            raise asyncio.CancelledError

        class Died(BaseException):
            pass

        died = [Died()]

        def think(_: object) -> Any:
            return died.pop() if died else "done"

        model = ScriptedModel(asks(call("copy")), then=think)
        agent = agent_of(model, memory, tools=[copy])
        log: Any = memory.run_log
        log.close = log.park = _nothing
        with pytest.raises(Died):
            await agent.run("go", "alice", run_id="r")
        del log.close, log.park
        clock.advance(timedelta(minutes=1))
        (output,) = await agent.recover()
        assert [m.run_step for m in output.messages] == [0, 1, 2, 3]
        assert contents(model.shown[-1]) == ["go", "", "CancelledError"]


async def _nothing(*_: object) -> None:
    """What a dead process does."""


async def test_a_row_that_somebody_has_locked_does_not_keep_other_leases_from_being_renewed(
    postgres_url: str,
) -> None:
    clock = FakeClock()
    leases = [lease_of(user=user) for user in ("alice", "bob")]
    async with SQLMemory.open(postgres_url, clock=clock) as memory:
        for lease in leases:
            await memory.run_log.begin(lease, new_run(), limit=None)
        engine = open_engine(postgres_url)
        async with engine.begin() as conn:
            await conn.execute(
                text("SELECT 1 FROM conversations WHERE user_id = 'alice' FOR UPDATE")
            )
            clock.advance(timedelta(seconds=10))
            async with asyncio.timeout(DEADLINE_S):
                renewal = await memory.run_log.renew(leases)
        await engine.dispose()
        assert renewal == Renewal(frozenset(), frozenset())
        clock.advance(timedelta(seconds=10))
        free = [await memory.run_log.is_free(user, "default") for user in ("alice", "bob")]
        assert free == [True, False], "only the locked one was not renewed"


class TestTheHeartbeat:
    async def test_goes_on_after_one_that_was_cancelled_before_it_began(self) -> None:
        renewed: list[str] = []

        class Log(VolatileRunLog):
            async def renew(self, leases: list[Lease]) -> Renewal:
                renewed.extend(lease.key.run_id for lease in leases)
                if leases[0].key.run_id == "second":
                    is_renewed.set()
                return await super().renew(leases)

        is_renewed = asyncio.Event()
        log = Log(InMemory())
        live = LiveRuns(log, asyncio.get_running_loop())

        def ignore(_: RunError) -> None:
            pass

        async with live.kept(lease_of("first", seconds=0.1), ignore):
            live.look_now()
            live._timer.cancel()  # type: ignore[union-attr]  # noqa: SLF001
            live._start()  # noqa: SLF001  (as the loop does in the turn in which the run ends)
        async with live.kept(lease_of("second", seconds=0.1), ignore):
            async with asyncio.timeout(DEADLINE_S):
                await is_renewed.wait()


class TestAVolatileLog:
    """What runs on a memory without a log of its own."""

    async def test_knows_what_is_at_work_and_nothing_else(self) -> None:
        memory = InMemory()
        log, lease = run_log_of(memory), lease_of()
        assert run_log_of(memory) is log
        assert await log.is_free("alice", "default")
        assert await log.begin(lease, new_run(), limit=None) is not None
        assert not await log.is_free("alice", "default")
        assert await log.begin(lease_of("other"), new_run(), limit=None) is None
        assert await log.find(lease.key) is None
        assert await log.resume(lease, limit=None) is None
        assert await log.interrupted("tester", limit=10, after=None) == []
        await log.close(lease, FAILED)
        assert await log.is_free("alice", "default")
        assert not await log.request_cancel(lease.key)
        with pytest.raises(RunLostError):
            await log.append(lease, Message.assistant("late"))
        assert (await log.renew([lease])).lost == {lease.token}
        assert contents(await memory.get_messages("alice")) == ["go"]

    async def test_ends_a_run_that_can_not_be_gone_on_with(self) -> None:
        log, lease = run_log_of(InMemory()), lease_of()
        await log.begin(lease, new_run(), limit=None)
        await log.park(lease)
        assert await log.is_free("alice", "default")


class Broken(InMemory):
    """A memory of somebody's own that stops working."""

    is_broken = False

    async def extend(self, *arguments: Any, **more: Any) -> list[Message]:
        if self.is_broken:
            raise ValueError("not mine")
        return await super().extend(*arguments, **more)


async def test_an_error_of_the_memory_at_the_end_does_not_hide_why_a_run_ended() -> None:
    memory, entered = Broken(), asyncio.Event()

    async def wait() -> None:
        memory.is_broken = True
        entered.set()
        await asyncio.Event().wait()

    agent = agent_of(ScriptedModel(asks(call("wait")), asks(call("wait"))), memory, tools=[wait])
    for stop, error in ((None, asyncio.CancelledError), (agent.cancel_run, RunCancelledError)):
        memory.is_broken = False
        entered.clear()
        run = asyncio.create_task(agent.run("go", "alice", run_id="r"))
        async with asyncio.timeout(DEADLINE_S):
            await entered.wait()
            if stop is None:
                run.cancel()
            else:
                await stop("r", "alice")
            with pytest.raises(error):
                await run


async def test_a_store_error_in_a_round_leaves_no_mark_on_its_task() -> None:
    """A worker's task goes on to other runs; one that looks cancelled would mislead them."""
    memory = Broken()

    async def break_it() -> str:
        memory.is_broken = True
        return "broken"

    agent = agent_of(ScriptedModel(asks(call("break_it"))), memory, tools=[break_it])
    with pytest.raises(ValueError, match="not mine"):
        await agent.run("go", "alice")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_hooks_own_store_error_ends_the_run(memory: SQLMemory) -> None:
    """It is about another database: going on with the run would ask the model again and again."""

    def audit(_: object) -> None:
        raise StoreUnavailableError("the audit's database is gone")

    agent = agent_of(ScriptedModel("ok"), memory, post_hooks=[audit])
    with pytest.raises(StoreUnavailableError):
        await agent.run("go", "alice", run_id="r")
    record = await memory.get_run("r", "alice")
    assert record is not None
    assert (record.status, record.error_type) == ("failed", "StoreUnavailableError")


async def test_a_hook_that_cancels_itself_does_not_end_the_recovery_of_others(
    memory: SQLMemory, clock: FakeClock
) -> None:
    for user in ("alice", "bob"):
        await memory.run_log.begin(lease_of(user=user), new_run(), limit=None)
    clock.advance(timedelta(minutes=1))

    def fail_for_alice(asked: Any) -> None:
        if asked.user_id == "alice":
            raise asyncio.CancelledError

    agent = agent_of(ScriptedModel(then="ok"), memory, post_hooks=[fail_for_alice])
    assert [output.user_id for output in await agent.recover()] == ["bob"]
    assert roles(await memory.get_messages("bob")) == ["user", "assistant"]


async def test_a_model_that_ignores_its_cancellation_leaves_no_mark_on_its_task(
    memory: SQLMemory,
) -> None:
    async def think(_: object) -> str:
        asyncio.get_running_loop().call_soon(agent_cancels.set)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "I went on"

    agent_cancels = asyncio.Event()
    agent = agent_of(ScriptedModel(think), memory)
    marks: list[int] = []

    async def work() -> str:
        answer = await agent.run("go", "alice", run_id="r")
        task = asyncio.current_task()
        marks.append(task.cancelling() if task else -1)
        return answer.content

    running = asyncio.create_task(work())
    async with asyncio.timeout(DEADLINE_S):
        await agent_cancels.wait()
        assert await agent.cancel_run("r", "alice")
        assert await running == "I went on"
    assert marks == [0]


@pytest.mark.parametrize("tokens", [-1, 2**63, 1.5])
async def test_tokens_that_no_model_can_have_used_are_a_bad_reply(tokens: Any) -> None:
    with pytest.raises(BadReplyError, match="tokens"):
        asks(call("x"), usage=Usage(tokens, 0))


@pytest.mark.parametrize(
    "option",
    [
        {"lease": timedelta(0)},
        {"lease": timedelta.max},
        {"lease": 15},
        {"busy_timeout": timedelta(seconds=-1)},
    ],
)
def test_durations_out_of_their_bounds_are_named(option: dict[str, Any]) -> None:
    make: Callable[..., Agent] = Agent
    with pytest.raises(InvalidOptionError, match=next(iter(option))):
        make(name="a", model=ScriptedModel(), memory=InMemory(), **option)


async def test_a_step_waits_for_a_file_that_stays_locked_longer_than_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model was paid for: the batch has given up, then it waits by itself."""
    monkeypatch.setattr("agno_sql.store.database._RETRY_FOR_S", 0.0)
    file = tmp_path / "chat.db"
    lease = lease_of()
    async with SQLMemory.open(f"sqlite:///{file}") as memory:
        assert await memory.run_log.begin(lease, new_run(), limit=None) is not None
        with closing(sqlite3.connect(file, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            tries: list[str] = []

            def seen(sql: str) -> None:
                if sql != "BEGIN IMMEDIATE":
                    return
                tries.append(sql)
                if len(tries) == 2:
                    holder.execute("ROLLBACK")

            with statements(seen):
                answer = Message(role="assistant", content="ok", run_id="r", run_step=1)
                stored = await memory.run_log.append(lease, answer)
        assert stored.seq == 2
