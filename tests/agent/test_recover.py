"""Interrupted runs go on, or are closed: by recover, and by run with the same run_id."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.agent.events import RunCompleted, TextDelta, ToolCalled, ToolReturned
from agno_sql.agent.tool_calls import INTERRUPTED_RESULT
from agno_sql.clock import SystemClock
from agno_sql.errors import (
    CorruptRecordError,
    ModelUnavailableError,
    OutputRejectedError,
    RunCancelledError,
    RunFailedError,
    RunIdReusedError,
)
from agno_sql.testing.wire_rules import violation
from tests.agent.durable import (
    ANSWER,
    CHARGED,
    LOOKED_UP,
    QUESTION,
    Moment,
    Shop,
    Step,
)
from tests.agent.models import (
    DEADLINE_S,
    ScriptedModel,
    as_wire,
    asks,
    call,
    contents,
    events_of,
    pieces,
    refused_by_a_provider,
    roles,
)
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agno_sql.agent.context import HookInput

LEASE = timedelta(seconds=15)
BROKEN_INPUT = "content = content || '\x10zz' WHERE run_step = 0"
BROKEN_CALLS = """tool_calls = '{"a": 1}' WHERE run_step = 1"""
WHOLE = ["user", "assistant", "tool", "tool", "assistant"]


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with Shop.open(database_url, FakeClock(), tmp_path) as opened:
        yield opened


class TestTheSameRunIdAgain:
    @pytest.mark.guarantee("G34")
    @pytest.mark.parametrize("step", ["begin", "calls", "first result", "second result"])
    async def test_goes_on_with_the_interrupted_run_without_its_pre_hooks(
        self, shop: Shop, step: Step
    ) -> None:
        judged: list[str] = []

        def judge(given: HookInput) -> None:
            judged.append(given.input)

        await shop.interrupt(step, pre_hooks=[judge])
        assert judged == [QUESTION]
        shop.clock.advance(LEASE)
        agent = shop.agent(pre_hooks=[judge])

        output = await agent.run(QUESTION, "alice", run_id="r-1")

        assert judged == [QUESTION]
        assert (output.content, roles(output.messages)) == (ANSWER, WHOLE)
        record = await shop.record()
        assert (record.status, record.attempt) == ("completed", 2)
        assert roles(await shop.memory.get_messages("alice")) == WHOLE
        made = {"begin": 1, "calls": 0, "first result": 1, "second result": 1}[step]
        assert shop.journal.counts() == (2, 1, made)

    @pytest.mark.parametrize("step", ["calls", "first result", "second result"])
    async def test_streams_the_interrupted_run_from_its_beginning(
        self, shop: Shop, step: Step
    ) -> None:
        calls = [call("look_up", "c1", order=1), call("charge", "c2", amount=5)]
        await shop.interrupt(step, model=ScriptedModel(asks(*calls, text="One moment. ")))
        shop.clock.advance(LEASE)

        events = await events_of(shop.agent().stream(QUESTION, "alice", run_id="r-1"))

        called = [event.call.name for event in events if isinstance(event, ToolCalled)]
        returned = [e.message.content for e in events if isinstance(e, ToolReturned)]
        assert called == ["look_up", "charge"]
        charged = CHARGED if step == "second result" else INTERRUPTED_RESULT
        assert sorted(returned) == sorted([LOOKED_UP, charged])
        texts = [e.text for e in events if isinstance(e, TextDelta)]
        assert texts == ["One moment. ", *pieces(ANSWER)]
        assert isinstance(events[-1], RunCompleted)
        assert roles(events[-1].output.messages) == WHOLE
        assert (await shop.record()).attempt == 2

    async def test_waits_until_the_lease_of_the_dead_has_expired(
        self, database_url: str, tmp_path: Path
    ) -> None:
        """With the clock of the machine: nobody tells that a process has died."""
        lease = timedelta(seconds=0.3)
        async with Shop.open(database_url, SystemClock(), tmp_path) as shop:
            began = datetime.now(UTC)
            await shop.interrupt("calls", lease=lease)
            async with asyncio.timeout(DEADLINE_S):
                output = await shop.agent().run(QUESTION, "alice", run_id="r-1")
        assert output.content == ANSWER
        assert datetime.now(UTC) - began >= lease

    async def test_of_another_input_or_agent_does_not_touch_the_interrupted_run(
        self, shop: Shop
    ) -> None:
        await shop.interrupt("calls")
        shop.clock.advance(LEASE)
        for agent, asked in [
            (shop.agent(), "something else"),
            (shop.agent(id="other shop"), QUESTION),
        ]:
            with pytest.raises(RunIdReusedError):
                await agent.run(asked, "alice", run_id="r-1")
        record = await shop.record()
        assert (record.status, record.attempt) == ("running", 1)
        (output,) = await shop.agent().recover()
        assert output.content == ANSWER

    async def test_survives_one_death_after_the_other(self, shop: Shop) -> None:
        steps: list[Step] = ["begin", "calls", "first result", "second result", "answer"]
        for step in steps:
            moment: Moment = "committed" if step == "begin" else "uncommitted"
            await shop.interrupt(step, moment)
            shop.clock.advance(LEASE)
        (output,) = await shop.agent().recover()
        assert output.content == ANSWER
        record = await shop.record()
        assert (record.status, record.attempt) == ("completed", len(steps) + 1)
        assert [m.seq for m in await shop.memory.get_messages("alice")] == [1, 2, 3, 4, 5]

    async def test_makes_a_call_of_a_later_round_again_under_its_own_key(self, shop: Shop) -> None:
        """Though the provider has repeated the ids of the calls."""
        await shop.interrupt("second result")
        shop.clock.advance(LEASE)
        again = asks(call("look_up", "c1", order=1), call("charge", "c2", amount=5))
        await shop.interrupt("first result", "uncommitted", model=ScriptedModel(again))
        first, second = shop.journal.of("look_up")
        shop.clock.advance(LEASE)
        (output,) = await shop.agent().recover()
        assert shop.journal.of("look_up") == [first, second, second]
        assert first != second
        results = contents(output.messages, "tool")
        assert results == [LOOKED_UP, CHARGED, LOOKED_UP, INTERRUPTED_RESULT]
        assert (await shop.record()).attempt == 3

    async def test_does_not_need_a_tool_that_the_agent_no_longer_has(self, shop: Shop) -> None:
        await shop.interrupt("calls")
        shop.clock.advance(LEASE)
        output = await shop.agent(tools=[]).run(QUESTION, "alice", run_id="r-1")
        assert contents(output.messages, "tool") == [INTERRUPTED_RESULT, INTERRUPTED_RESULT]


class TestWhatCannotBeResumed:
    """Is closed, so that its conversation goes on."""

    @pytest.mark.guarantee("G37")
    @pytest.mark.parametrize(
        "broken, last",
        [
            (BROKEN_INPUT, "calls"),
            (BROKEN_INPUT, "begin"),
            (BROKEN_CALLS, "first result"),
            (BROKEN_CALLS, "calls"),
        ],
        ids=["an-older-content", "the-newest-content", "older-calls", "the-newest-calls"],
    )
    async def test_a_run_with_a_row_that_cannot_be_decoded_fails(
        self,
        shop: Shop,
        broken: str,
        last: Step,
    ) -> None:
        await shop.interrupt(last)
        await shop.destroy(broken)
        shop.clock.advance(LEASE)
        asked = shop.journal.counts()

        assert await shop.agent().recover() == []

        status, error_type, message = await shop.told()
        assert (status, error_type) == ("failed", "CorruptRecordError")
        assert re.match(r"message [12] of user 'alice', session 'default' can't be", message or "")
        assert await shop.memory.run_log.is_free("alice", "default")
        assert shop.journal.counts() == asked

    @pytest.mark.parametrize("broken", [BROKEN_INPUT, BROKEN_CALLS], ids=["content", "calls"])
    async def test_who_asks_for_such_a_run_is_told_the_row_and_no_tool_or_model_is_called(
        self,
        shop: Shop,
        broken: str,
    ) -> None:
        await shop.interrupt("calls")
        await shop.destroy(broken)
        shop.clock.advance(LEASE)
        asked = shop.journal.counts()
        with pytest.raises(CorruptRecordError, match=r"message [12] of user 'alice'"):
            await shop.agent().run(QUESTION, "alice", run_id="r-1")
        assert shop.journal.counts() == asked

    async def test_a_run_that_a_post_hook_rejects_fails(self, shop: Shop) -> None:
        def reject(given: HookInput) -> None:
            raise OutputRejectedError(f"not {given.output}")

        await shop.interrupt("second result")
        shop.clock.advance(LEASE)
        assert await shop.agent(post_hooks=[reject]).recover() == []
        assert await shop.told() == ("failed", "OutputRejectedError", f"not {ANSWER}")
        assert roles(await shop.memory.get_messages("alice")) == WHOLE[:-1]

    async def test_a_hooks_own_error_ends_the_run_and_not_the_recovery_of_others(
        self, shop: Shop
    ) -> None:
        def fail_for_bob(given: HookInput) -> None:
            if given.user_id == "bob":
                raise LookupError("password=hunter2")

        for user in ("alice", "bob", "carol"):
            await shop.interrupt("calls", user_id=user)
        shop.clock.advance(LEASE)
        outputs = await shop.agent(post_hooks=[fail_for_bob]).recover()
        assert [output.user_id for output in outputs] == ["alice", "carol"]
        record = await shop.record(user_id="bob")
        assert (record.status, record.error_type, record.error_message) == (
            *("failed", "LookupError"),
            "",
        )

    async def test_a_run_whose_model_fails_again_fails(self, shop: Shop) -> None:
        await shop.interrupt("calls")
        shop.clock.advance(LEASE)
        model = ScriptedModel(ModelUnavailableError("no route to the model"))
        assert await shop.agent(model=model).recover() == []
        assert await shop.told() == ("failed", "ModelUnavailableError", "no route to the model")
        assert await refused_by_a_provider(shop.memory, "alice") is None

    async def test_the_rounds_before_the_crash_count_for_max_loops(self, shop: Shop) -> None:
        def ask_again(_: object) -> Any:
            return asks(call("look_up", "c3", order=3))

        await shop.interrupt("second result")
        shop.clock.advance(LEASE)
        model = ScriptedModel(ask_again)
        assert await shop.agent(model=model, max_loops=2).recover() == []
        assert (await shop.told())[:2] == ("failed", "MaxLoopsError")
        assert len(model.shown) == 1
        assert roles(await shop.memory.get_messages("alice")) == WHOLE[:-1]

    @pytest.mark.parametrize("by_recover", [True, False], ids=["recover", "the-same-run-id"])
    async def test_a_run_that_was_to_be_cancelled_when_it_died_is_cancelled(
        self, shop: Shop, by_recover: bool
    ) -> None:
        agent = shop.agent()
        await shop.interrupt("calls")
        assert await agent.cancel_run("r-1", "alice")
        assert (await shop.record()).status == "running"
        shop.clock.advance(LEASE)

        if by_recover:
            assert await agent.recover() == []
        with pytest.raises(RunCancelledError):
            await agent.run(QUESTION, "alice", run_id="r-1")

        assert await shop.told() == ("cancelled", "RunCancelledError", "the run was cancelled")
        await assert_closed(shop, "RunCancelledError")

    async def test_an_interrupted_run_is_cancelled_at_once(self, shop: Shop) -> None:
        agent = shop.agent()
        await shop.interrupt("calls")
        shop.clock.advance(LEASE)
        assert await agent.cancel_run("r-1", "alice")
        assert (await shop.told())[0] == "cancelled"
        assert await agent.recover() == []
        await assert_closed(shop, "RunCancelledError")

    @pytest.mark.guarantee("G37")
    async def test_the_next_run_of_the_conversation_closes_an_interrupted_one(
        self, shop: Shop
    ) -> None:
        await shop.interrupt("calls")
        shop.clock.advance(LEASE)
        agent = shop.agent()

        output = await agent.run("And order 2?", "alice", run_id="r-2")

        assert output.content == ANSWER
        status, error_type, message = await shop.told()
        assert (status, error_type) == ("failed", "RunInterruptedError")
        assert message
        assert await agent.recover() == []
        with pytest.raises(RunFailedError) as failed:
            await agent.run(QUESTION, "alice", run_id="r-1")
        assert failed.value.error_type == "RunInterruptedError"
        stored = await shop.memory.get_messages("alice")
        assert roles(stored) == [*WHOLE[:-1], *WHOLE]
        assert [message.run_id for message in stored] == ["r-1"] * 4 + ["r-2"] * 5
        assert all(text.startswith("RunInterruptedError: ") for text in contents(stored[2:4]))
        assert violation(as_wire(stored)) is None


async def assert_closed(shop: Shop, reason: str) -> None:
    """A run of alice's that died with two open calls has ended, and neither was made."""
    stored = await shop.memory.get_messages("alice")
    assert roles(stored) == WHOLE[:-1]
    assert all(result.startswith(f"{reason}: ") for result in contents(stored, "tool"))
    assert all("unknown" in result for result in contents(stored, "tool"))
    assert await refused_by_a_provider(shop.memory, "alice") is None
    assert shop.journal.counts() == (1, 0, 0)


class TestWhoseRuns:
    @pytest.mark.guarantee("G35")
    async def test_recover_leaves_the_runs_of_other_agents_alone(self, shop: Shop) -> None:
        await shop.interrupt("calls", user_id="alice")
        await shop.interrupt("calls", user_id="bob", id="other shop")
        shop.clock.advance(LEASE)

        (output,) = await shop.agent().recover()

        assert output.user_id == "alice"
        others = await shop.record(user_id="bob")
        assert (others.status, others.attempt) == ("running", 1)
        assert len(await shop.memory.get_messages("bob")) == 2
        (output,) = await shop.agent(id="other shop").recover()
        assert output.user_id == "bob"

    @pytest.mark.guarantee("G35")
    async def test_recover_leaves_a_run_alone_until_the_moment_its_lease_expires(
        self, shop: Shop
    ) -> None:
        await shop.interrupt("calls")
        agent = shop.agent()
        shop.clock.advance(LEASE - timedelta(microseconds=1))
        assert await agent.recover() == []
        record = await shop.record()
        assert (record.status, record.attempt) == ("running", 1)
        shop.clock.advance(timedelta(microseconds=1))
        (output,) = await agent.recover()
        assert output.content == ANSWER

    async def test_recover_leaves_a_run_alone_that_is_at_work_in_this_process(
        self, shop: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Even if its lease has expired: the process stood still, and may go on yet."""
        thinking, go_on = asyncio.Event(), asyncio.Event()

        async def think(_: object) -> str:
            thinking.set()
            await go_on.wait()
            return "here I am"

        agent = shop.agent(model=ScriptedModel(think))
        run = asyncio.create_task(agent.run(QUESTION, "alice", run_id="r-1"))
        async with asyncio.timeout(DEADLINE_S):
            await thinking.wait()
            shop.clock.advance(LEASE)
            assert await agent.recover() == []
            go_on.set()
            assert (await run).content == "here I am"
        assert not [record for record in caplog.records if record.name.startswith("agno_sql")]
        assert (await shop.record()).attempt == 1

    async def test_a_run_id_of_several_conversations_is_recovered_in_each(self, shop: Shop) -> None:
        """More than a page of them, and all of one run_id."""
        users = [f"user-{n:02}" for n in range(40)]
        await asyncio.gather(*(shop.interrupt("calls", user_id=user) for user in users))
        shop.clock.advance(LEASE)
        agent = shop.agent()
        outputs = await agent.recover()
        assert [output.user_id for output in outputs] == users
        assert await agent.recover() == []
        assert len(set(shop.journal.of("look_up"))) == len(users)
