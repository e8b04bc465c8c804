"""Tasks are runs: repeated, cut off, cancelled, followed, failed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from a2a.utils.errors import (
    InternalError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from agno_sql.errors import InputRejectedError, ModelRequestError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.a2a.clients import (
    CANCELED,
    FAILED,
    WAYS,
    WORKING,
    HeldModel,
    answer,
    entered,
    talking,
    talking_to_two,
    when_ended,
)
from tests.agent.models import ScriptedModel, agent_of, contents
from tests.support.runner import Gate


class TestTheSameMessageId:
    """In the same context is the same task."""

    @pytest.mark.guarantee("G78")
    @pytest.mark.parametrize("binding, streams", WAYS)
    async def test_again_is_answered_without_asking_the_model(
        self, memory: SQLMemory, binding: str, streams: bool
    ) -> None:
        model = ScriptedModel("1", "2", "3")
        async with talking(agent_of(model, memory), binding, streams=streams) as other:
            for number, message_id in enumerate(("m", "no run id: ü 👋", "x" * 4000), start=1):
                first = await other.say("x", "alice", message_id=message_id)
                again = await other.say("x", "alice", message_id=message_id)
                assert first.id == again.id
                assert answer(first) == answer(again) == str(number)
        assert len(model.shown) == 3
        assert contents(await memory.get_messages("alice")) == ["x", "1", "x", "2", "x", "3"]

    @pytest.mark.guarantee("G78")
    async def test_of_many_at_once_asks_the_model_once(self, memory: SQLMemory) -> None:
        gate = Gate()
        model = ScriptedModel(gate.think)
        async with talking(agent_of(model, memory)) as other:
            asked = [
                asyncio.create_task(other.say("x", "alice", message_id="m")) for _ in range(20)
            ]
            await entered(gate)
            gate.opened.set()
            told = await asyncio.gather(*asked)
        assert [answer(task) for task in told] == ["let go"] * 20
        assert len(model.shown) == 1

    @pytest.mark.guarantee("G78")
    @pytest.mark.parametrize("streams", [False, True])
    async def test_with_another_text_is_refused(self, memory: SQLMemory, streams: bool) -> None:
        gate = Gate()
        model = ScriptedModel(gate.think)
        async with talking(agent_of(model, memory), streams=streams) as other:
            asked = asyncio.create_task(other.say("x", "alice", message_id="m"))
            await entered(gate)
            for at_once in (False, True):
                with pytest.raises(InvalidParamsError, match="another message"):
                    await other.say("y", "alice", message_id="m", at_once=at_once)
            gate.opened.set()
            await asked
            for at_once in (False, True):
                with pytest.raises(InvalidParamsError, match="another message"):
                    await other.say("y", "alice", message_id="m", at_once=at_once)
        assert contents(await memory.get_messages("alice")) == ["x", "let go"]

    @pytest.mark.guarantee("G78")
    @pytest.mark.parametrize("at_once", [False, True])
    async def test_with_another_text_is_refused_by_another_process_too(
        self, database_url: str, at_once: bool
    ) -> None:
        gate = Gate()
        async with talking_to_two(database_url, gate) as (other, elsewhere):
            begun = await other.say("x", "alice", message_id="m", at_once=True)
            with pytest.raises(InvalidParamsError, match="another message"):
                await elsewhere.say("y", "alice", message_id="m", at_once=at_once)
            gate.opened.set()
            assert answer(await elsewhere.say("x", "alice", message_id="m")) == "let go"
            await when_ended(other, begun.id)

    @pytest.mark.guarantee("G78")
    async def test_in_another_context_is_another_task(self, sqlite_memory: SQLMemory) -> None:
        async with talking(agent_of(ScriptedModel("1", "2"), sqlite_memory)) as other:
            one = await other.say("x", "a", message_id="m")
            two = await other.say("x", "b", message_id="m")
        assert one.id != two.id
        assert (answer(one), answer(two)) == ("1", "2")


class TestAtOnce:
    """A client that does not wait gets the task as soon as it is stored."""

    @pytest.mark.guarantee("G80")
    @pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
    async def test_the_task_is_told_while_it_is_at_work(
        self, memory: SQLMemory, binding: str
    ) -> None:
        gate = Gate()
        async with talking(agent_of(ScriptedModel(gate.think), memory), binding) as other:
            begun = await other.say("x", "alice", at_once=True)
            assert begun.status.state == WORKING
            assert not begun.artifacts
            assert (await memory.runs("alice"))[0].status == "running"
            again = await other.say(
                "x", "alice", message_id=begun.history[0].message_id, at_once=True
            )
            assert again == begun
            gate.opened.set()
            assert answer(await when_ended(other, begun.id)) == "let go"

    async def test_a_task_that_can_t_begin_is_an_error(self, sqlite_memory: SQLMemory) -> None:
        gate = Gate()
        agent = agent_of(ScriptedModel(gate.think), sqlite_memory, busy_timeout=timedelta(0))
        async with talking(agent) as other:
            first = await other.say("x", "alice", at_once=True)
            for at_once in (False, True):
                with pytest.raises(InternalError, match="another run") as caught:
                    await other.say("y", "alice", at_once=at_once)
            assert "conversation_busy" in repr(caught.value)
            gate.opened.set()
            await when_ended(other, first.id)


class TestCancelling:
    """Ends a task that is at work."""

    @pytest.mark.guarantee("G81")
    @pytest.mark.parametrize("binding, streams", WAYS)
    async def test_in_the_middle_tells_who_waits(
        self, memory: SQLMemory, binding: str, streams: bool
    ) -> None:
        gate = Gate()
        async with talking(agent_of(HeldModel(gate), memory), binding, streams=streams) as other:
            asked = asyncio.create_task(other.say("x", "alice"))
            await entered(gate)
            (working,) = (await other.list(context_id="alice")).tasks
            cancelled = await other.cancel(working.id)
            told = await asked
            assert cancelled.status.state == told.status.state == CANCELED
            assert cancelled.id == told.id
            assert (await other.get(told.id)).status.state == CANCELED
            with pytest.raises(TaskNotCancelableError):
                await other.cancel(told.id)
        assert gate.was_cancelled

    @pytest.mark.guarantee("G81")
    async def test_of_a_task_in_another_process(self, database_url: str) -> None:
        gate = Gate()
        short = timedelta(seconds=1)
        async with talking_to_two(database_url, gate, lease=short) as (other, elsewhere):
            begun = await other.say("x", "alice", at_once=True)
            await entered(gate)
            assert (await elsewhere.cancel(begun.id)).status.state == CANCELED
            assert (await other.get(begun.id)).status.state == CANCELED
        assert gate.was_cancelled

    async def test_of_a_process_that_looks_late_is_told_as_it_is(
        self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = Gate()
        long = timedelta(hours=1)
        async with talking_to_two(sqlite_url, gate, lease=long) as (other, elsewhere):
            begun = await other.say("x", "alice", at_once=True)
            await entered(gate)
            with monkeypatch.context() as soon:
                soon.setattr("agno_sql.server.a2a.handler._CANCEL_WITHIN_S", 0.1)
                assert (await elsewhere.cancel(begun.id)).status.state == WORKING
            assert (await other.cancel(begun.id)).status.state == CANCELED

    async def test_of_what_ends_by_itself_meanwhile_is_refused(
        self, sqlite_memory: SQLMemory
    ) -> None:
        """A hook has the answer judged for longer than the cancellation takes to be seen."""
        gate = Gate()

        async def fail(_: object) -> None:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                raise ValueError("no") from None

        agent = agent_of(ScriptedModel("hello"), sqlite_memory, post_hooks=[fail])
        async with talking(agent) as other:
            begun = await other.say("x", "alice", at_once=True)
            await entered(gate)
            with pytest.raises(TaskNotCancelableError):
                await other.cancel(begun.id)
            assert (await other.get(begun.id)).status.state == FAILED

    async def test_what_has_ended_or_is_not_there_is_an_error(
        self, sqlite_memory: SQLMemory
    ) -> None:
        async with talking(agent_of(ScriptedModel("hello"), sqlite_memory)) as other:
            ended = await other.say("x", "alice")
            with pytest.raises(TaskNotCancelableError):
                await other.cancel(ended.id)
            with pytest.raises(TaskNotFoundError):
                await other.cancel("YWxpY2UKbm9uZQ")


class TestAFailure:
    """Is a task that failed, if it was stored; else an error."""

    @pytest.mark.guarantee("G83")
    @pytest.mark.parametrize("binding, streams", WAYS)
    async def test_of_the_model_is_told_by_its_kind_alone(
        self, memory: SQLMemory, binding: str, streams: bool
    ) -> None:
        model = ScriptedModel(ModelRequestError("a secret"))
        async with talking(agent_of(model, memory), binding, streams=streams) as other:
            failed = await other.say("x", "alice", message_id="m")
            again = await other.say("x", "alice", message_id="m")
            kept = await other.get(failed.id)
        assert [task.status.state for task in (failed, again, kept)] == [FAILED] * 3
        assert failed.status == again.status == kept.status
        assert "ModelRequestError" in failed.status.message.parts[0].text
        assert "secret" not in str(failed)
        assert len(model.shown) == 1

    @pytest.mark.parametrize("binding, streams", WAYS)
    async def test_of_a_hook_that_rejects_the_message_stores_nothing(
        self, sqlite_memory: SQLMemory, binding: str, streams: bool
    ) -> None:
        def reject(_: object) -> None:
            raise InputRejectedError("not with me")

        agent = agent_of(ScriptedModel(), sqlite_memory, pre_hooks=[reject])
        async with talking(agent, binding, streams=streams) as other:
            with pytest.raises(InvalidParamsError, match="not with me"):
                await other.say("x", "alice")
        assert await sqlite_memory.size("alice") == 0

    @pytest.mark.guarantee("G80")
    @pytest.mark.parametrize("streams", [False, True])
    async def test_of_the_server_to_go_on_is_an_error_and_the_task_goes_on_elsewhere(
        self, memory: SQLMemory, streams: bool
    ) -> None:
        gate = Gate()
        agent = agent_of(ScriptedModel(gate.think, "after all"), memory)
        async with talking(agent, streams=streams) as other:
            asked = asyncio.create_task(other.say("x", "alice", message_id="m"))
            await entered(gate)
            agent.interrupt_runs()
            with pytest.raises(InternalError, match="the server stops"):
                await asked
            assert answer(await other.say("x", "alice", message_id="m")) == "after all"

    async def test_to_find_what_was_cleared_is_no_task(self, sqlite_memory: SQLMemory) -> None:
        async with talking(agent_of(ScriptedModel("hello"), sqlite_memory)) as other:
            task = await other.say("x", "alice")
            await sqlite_memory.clear("alice")
            with pytest.raises(TaskNotFoundError):
                await other.get(task.id)
            assert not (await other.list(context_id="alice")).tasks


class TestATask:
    """Is one message and its answer."""

    async def test_takes_no_further_message(self, sqlite_memory: SQLMemory) -> None:
        async with talking(agent_of(ScriptedModel("hello"), sqlite_memory)) as other:
            task = await other.say("x", "alice")
            with pytest.raises(UnsupportedOperationError, match="without taskId"):
                await other.say("y", "alice", task_id=task.id)
            with pytest.raises(InvalidParamsError, match="another contextId"):
                await other.say("y", "bob", task_id=task.id)
            with pytest.raises(TaskNotFoundError):
                await other.say("y", "alice", task_id="none")
        assert contents(await sqlite_memory.get_messages("alice")) == ["x", "hello"]

    async def test_of_another_agent_of_the_database_is_not_there(
        self, sqlite_memory: SQLMemory
    ) -> None:
        async with talking(agent_of(ScriptedModel("hello"), sqlite_memory)) as other:
            task = await other.say("x", "alice", message_id="m")
        stranger = agent_of(ScriptedModel(), sqlite_memory, id="another")
        async with talking(stranger) as other:
            with pytest.raises(TaskNotFoundError):
                await other.get(task.id)
            assert not (await other.list(context_id="alice")).tasks
            with pytest.raises(InvalidParamsError, match="another message"):
                await other.say("x", "alice", message_id="m")

    async def test_has_as_much_history_as_is_asked_for(self, sqlite_memory: SQLMemory) -> None:
        async with talking(agent_of(ScriptedModel("hello"), sqlite_memory)) as other:
            task = await other.say("x", "alice")
            assert [m.parts[0].text for m in task.history] == ["x"]
            assert not (await other.get(task.id, history_length=0)).history
            assert len((await other.get(task.id, history_length=5)).history) == 1
            with pytest.raises(InvalidParamsError):
                await other.get(task.id, history_length=-1)

    async def test_goes_without_its_message_when_that_was_pruned(self, sqlite_url: str) -> None:
        async with (
            SQLMemory.open(sqlite_url, capacity=1) as memory,
            talking(agent_of(ScriptedModel("hello"), memory)) as other,
        ):
            task = await other.say("x", "alice")
            assert answer(task) == "hello"
            assert not task.history
            await memory.add(Message.user("more"), "alice")
            with pytest.raises(TaskNotFoundError):
                await other.get(task.id)
