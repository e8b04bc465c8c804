"""A run_id makes a repetition safe: the model is asked once, and everybody gets that answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.agent.events import RunCompleted, RunFailed
from agno_sql.errors import (
    ConversationBusyError,
    ModelUnavailableError,
    RunCancelledError,
    RunFailedError,
    RunIdReusedError,
)
from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from agno_sql.models.chat_model import ModelReply
from tests.agent.models import (
    DEADLINE_S,
    ScriptedModel,
    agent_of,
    asks,
    call,
    contents,
    events_of,
)
from tests.support.runner import LONG, Gate, Job, everything, runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agno_sql.agent.agent import Agent
    from agno_sql.agent.context import HookInput
    from agno_sql.agent.output import RunOutput

NOT_AT_ALL = timedelta(0)
ODD = "nul \x00, alone \ud800, 日本語"


@pytest.fixture
async def memory(database_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url, capacity=None) as opened:
        yield opened


@pytest.fixture
async def another(database_url: str, memory: SQLMemory) -> AsyncIterator[SQLMemory]:
    """The same database, as another process sees it."""
    async with SQLMemory.open(database_url, capacity=None) as opened:
        yield opened


def echo(text: str) -> str:
    return f"echo of {text}"


async def first_answer(memory: SQLMemory, text: str = ODD, user: str = "alice") -> RunOutput:
    """Return what a run with two tool calls, of run_id "r-1", answers."""
    calls = [call("echo", "same", text=ODD), call("nope", "c2")]
    model = ScriptedModel(
        asks(*calls, text="hm", usage=Usage(10, 5)),
        ModelReply(f"{ODD}!", usage=Usage(20, 7)),
    )
    return await agent_of(model, memory, tools=[echo]).run(text, user, run_id="r-1")


async def ask(agent: Agent, way: str, text: str, **options: Any) -> RunOutput:
    """Return the output, or raise the error, of a run or a stream that tells nothing else."""
    if way == "run":
        return await agent.run(text, "alice", run_id="r-1", **options)
    (told,) = await events_of(agent.stream(text, "alice", run_id="r-1", **options))
    if isinstance(told, RunFailed):
        raise told.error
    assert isinstance(told, RunCompleted)
    return told.output


class TestACompletedRun:
    @pytest.mark.guarantee("G33")
    @pytest.mark.parametrize("way", ["run", "stream"])
    async def test_is_answered_again_with_the_same_output_and_no_model_call(
        self, database_url: str, memory: SQLMemory, way: str
    ) -> None:
        output = await first_answer(memory)
        before = everything(database_url)
        hooked: list[HookInput] = []
        hooks = {"pre_hooks": [hooked.append], "post_hooks": [hooked.append]}
        async with SQLMemory.open(database_url, capacity=None) as after_a_restart:
            for where in (memory, after_a_restart):
                model = ScriptedModel()
                again = await ask(agent_of(model, where, **hooks), way, ODD)
                assert again == output
                assert model.shown == []
        assert output.usage == Usage(30, 12)
        assert hooked == [], "an input that is stored was accepted before"
        assert everything(database_url) == before

    async def test_of_another_process_is_answered_here_and_there(
        self, database_url: str, memory: SQLMemory
    ) -> None:
        job = Job(url=database_url, waits=False)
        async with runner(job) as process:
            assert (await process.ends()).content == "answer of r-1"
        before = everything(database_url)
        model = ScriptedModel()
        output = await agent_of(model, memory).run("go", "alice", run_id="r-1")
        assert contents(output.messages) == ["go", "", "worked", "answer of r-1"]
        assert model.shown == []
        async with runner(job) as process:
            lines = await process.says("ended ")
        assert len(lines) == 1, "it neither asked its model nor called its tool"
        assert '"answer of r-1"' in lines[0]
        assert everything(database_url) == before

    async def test_answers_at_once_while_another_run_has_its_conversation(
        self, memory: SQLMemory, another: SQLMemory
    ) -> None:
        output, gate = await first_answer(memory), Gate()
        holder = agent_of(ScriptedModel(gate.think), memory, lease=LONG)
        run = asyncio.create_task(holder.run("next", "alice"))
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            for where in (memory, another):
                again = agent_of(ScriptedModel(), where, busy_timeout=NOT_AT_ALL)
                assert await again.run(ODD, "alice", run_id="r-1") == output
            gate.opened.set()
            await run

    @pytest.mark.guarantee("G33")
    async def test_is_known_as_long_as_its_messages_are_kept(self, database_url: str) -> None:
        async with SQLMemory.open(database_url, capacity=3) as memory:
            first = await agent_of(ScriptedModel("one"), memory).run("go", "alice", run_id="r-1")
            # Its question goes with the second message, its answer with the third.
            for _ in range(2):
                await memory.add(Message.user("more"), "alice")
                again = await agent_of(ScriptedModel(), memory).run("go", "alice", run_id="r-1")
                assert again.content == first.content
            assert contents(await memory.get_messages("alice")) == ["one", "more", "more"]
            assert await memory.get_run("r-1", "alice") is not None

            await memory.add(Message.user("more"), "alice")
            assert await memory.get_run("r-1", "alice") is None
            anew = await agent_of(ScriptedModel("two"), memory).run("other", "alice", run_id="r-1")
            assert anew.content == "two"

    @pytest.mark.parametrize("how", ["clear", "erase"])
    async def test_is_not_known_any_more_after_a_clean_up(
        self, memory: SQLMemory, how: str
    ) -> None:
        await first_answer(memory)
        await (memory.clear("alice") if how == "clear" else memory.erase("alice"))
        assert await memory.get_run("r-1", "alice") is None
        anew = await agent_of(ScriptedModel("two"), memory).run("other", "alice", run_id="r-1")
        assert contents(anew.messages) == ["other", "two"]

    async def test_in_memory_is_forgotten(self) -> None:
        """What lives in this process alone is not made safe to repeat."""
        agent = agent_of(ScriptedModel("one", "two"), InMemory())
        first = await agent.run("go", "alice", run_id="r-1")
        second = await agent.run("go", "alice", run_id="r-1")
        assert (first.content, second.content) == ("one", "two")


class TestARunThatIsAtWork:
    """Whoever comes with its run_id waits for it and gets what it gets."""

    @pytest.mark.guarantee("G33")
    @pytest.mark.parametrize("where", ["here", "elsewhere"])
    @pytest.mark.parametrize("way", ["run", "stream"])
    async def test_gives_its_output_to_all_who_wait_for_it(
        self, memory: SQLMemory, another: SQLMemory, where: str, way: str
    ) -> None:
        gate = Gate()
        hooked: list[HookInput] = []
        model = ScriptedModel(gate.think)
        first = asyncio.create_task(ask(agent_of(model, memory, lease=LONG), "run", "go"))
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            unused = ScriptedModel()
            second = agent_of(
                unused, memory if where == "here" else another, pre_hooks=[hooked.append]
            )
            waiting = [asyncio.create_task(ask(second, way, "go")) for _ in range(5)]
            for _ in range(20):
                await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
            gate.opened.set()
            output = await first
            assert await asyncio.gather(*waiting) == [output] * 5
        assert output.content == "let go"
        assert len(model.shown) == 1
        assert unused.shown == []
        assert hooked == []

    @pytest.mark.guarantee("G33")
    async def test_in_another_process_gives_its_output_to_who_waits_here(
        self, database_url: str, memory: SQLMemory
    ) -> None:
        model = ScriptedModel()
        async with runner(Job(url=database_url)) as process:
            await process.says("working")
            waiting = asyncio.create_task(ask(agent_of(model, memory), "run", "go"))
            process.go_on()
            async with asyncio.timeout(3 * DEADLINE_S):
                output = await waiting
            assert (await process.ends()).how == "completed"
        assert contents(output.messages) == ["go", "", "worked", "answer of r-1"]
        assert model.shown == []

    async def test_that_two_begin_at_one_moment_asks_its_model_once(
        self, memory: SQLMemory, another: SQLMemory
    ) -> None:
        model = ScriptedModel("once")
        agents = [agent_of(model, each, lease=LONG) for each in (memory, another)]
        async with asyncio.timeout(2 * DEADLINE_S):
            outputs = await asyncio.gather(
                *(agents[n % 2].run("go", "alice", run_id="r-1") for n in range(10))
            )
        assert outputs == [outputs[0]] * 10
        assert contents(outputs[0].messages) == ["go", "once"]
        assert contents(await memory.get_messages("alice")) == ["go", "once"]

    @pytest.mark.parametrize("where", ["here", "elsewhere"])
    async def test_is_waited_for_no_longer_than_a_busy_conversation(
        self, memory: SQLMemory, another: SQLMemory, where: str
    ) -> None:
        gate, unused = Gate(), ScriptedModel()
        first = asyncio.create_task(
            ask(agent_of(ScriptedModel(gate.think), memory, lease=LONG), "run", "go")
        )
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            place = memory if where == "here" else another
            second = agent_of(unused, place, busy_timeout=timedelta(seconds=0.05))
            with pytest.raises(ConversationBusyError):
                await ask(second, "run", "go")
            gate.opened.set()
            await first
            assert await ask(second, "run", "go") == await first
        assert unused.shown == []

    @pytest.mark.parametrize("how", ["fails", "is cancelled"])
    async def test_that_ends_without_an_answer_tells_it_to_who_waits(
        self, memory: SQLMemory, another: SQLMemory, how: str
    ) -> None:
        gate, unused = Gate(), ScriptedModel()

        async def fail(_: object) -> BaseException:
            await gate.wait()
            return ModelUnavailableError("the provider is down")

        first = asyncio.create_task(
            ask(agent_of(ScriptedModel(fail), memory, lease=LONG), "run", "go")
        )
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            places = (memory, another)
            waiting = [
                asyncio.create_task(ask(agent_of(unused, each), "run", "go")) for each in places
            ]
            if how == "fails":
                gate.opened.set()
            else:
                first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            told = await asyncio.gather(*waiting, return_exceptions=True)
        expected = RunFailedError if how == "fails" else RunCancelledError
        assert [type(error) for error in told] == [expected] * 2
        assert unused.shown == []


class TestARunThatEndedWithoutAnAnswer:
    @pytest.mark.parametrize("way", ["run", "stream"])
    @pytest.mark.parametrize(
        "error, name, words",
        [
            (ModelUnavailableError("down at 9"), "ModelUnavailableError", "down at 9"),
            (ValueError("password=hunter2"), "ValueError", None),
        ],
    )
    async def test_because_it_failed_raises_what_is_stored_of_its_error(
        self,
        database_url: str,
        memory: SQLMemory,
        error: Exception,
        name: str,
        words: str,
        way: str,
    ) -> None:
        with pytest.raises(type(error)):
            await agent_of(ScriptedModel(error), memory).run("go", "alice", run_id="r-1")
        before = everything(database_url)
        async with SQLMemory.open(database_url) as after_a_restart:
            hooked: list[HookInput] = []
            agent = agent_of(ScriptedModel(), after_a_restart, pre_hooks=[hooked.append])
            with pytest.raises(RunFailedError, match=name) as caught:
                await ask(agent, way, "go")
        assert caught.value.error_type == name
        assert words is None or words in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in str(before), "an error that is not ours may hold a secret"
        assert hooked == []
        assert everything(database_url) == before

    @pytest.mark.parametrize("way", ["run", "stream"])
    async def test_because_it_was_cancelled_raises_that(
        self, database_url: str, memory: SQLMemory, way: str
    ) -> None:
        gate = Gate()
        agent = agent_of(ScriptedModel(gate.think), memory, lease=LONG)
        run = asyncio.create_task(agent.run("go", "alice", run_id="r-1"))
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            before = everything(database_url)
            with pytest.raises(RunCancelledError, match="r-1"):
                await ask(agent_of(ScriptedModel(), memory), way, "go")
        assert everything(database_url) == before


class TestAnIdOfAnotherRun:
    @pytest.mark.guarantee("G33")
    @pytest.mark.parametrize("ended", ["completed", "failed", "running here", "running elsewhere"])
    @pytest.mark.parametrize("other", ["input", "agent"])
    async def test_is_refused_and_nothing_stored(
        self,
        database_url: str,
        memory: SQLMemory,
        another: SQLMemory,
        ended: str,
        other: str,
    ) -> None:
        gate = Gate()
        answers: dict[str, Any] = {"completed": "one", "failed": ModelUnavailableError("down")}
        model = ScriptedModel(answers.get(ended, gate.think))
        place = another if ended == "running elsewhere" else memory
        first = asyncio.create_task(ask(agent_of(model, place, lease=LONG), "run", "go"))
        unused = ScriptedModel()
        hooked: list[HookInput] = []
        agent = agent_of(
            unused,
            memory,
            id="somebody else" if other == "agent" else "tester",
            pre_hooks=[hooked.append],
            busy_timeout=LONG,
        )
        async with asyncio.timeout(DEADLINE_S):
            if ended.startswith("running"):
                await gate.entered.wait()
            else:
                await asyncio.gather(first, return_exceptions=True)
            before = everything(database_url)
            for way in ("run", "stream"):
                with pytest.raises(RunIdReusedError, match="r-1") as caught:
                    await ask(agent, way, "go" if other == "agent" else "go!")
                assert isinstance(caught.value, ValueError)
            assert everything(database_url) == before
            gate.opened.set()
            await asyncio.gather(first, return_exceptions=True)
        assert unused.shown == []
        assert hooked == []

    async def test_is_another_run_for_another_user_or_session(self, memory: SQLMemory) -> None:
        outputs = {}
        conversations = [(u, s) for u in ("alice", "bob", "default") for s in ("default", "alice")]
        for user, session in conversations:
            agent = agent_of(ScriptedModel(f"for {user} in {session}"), memory)
            outputs[user, session] = await agent.run(user, user, session_id=session, run_id="r-1")
        for (user, session), output in outputs.items():
            assert output.content == f"for {user} in {session}"
            agent = agent_of(ScriptedModel(), memory)
            assert await agent.run(user, user, session_id=session, run_id="r-1") == output
            record = await memory.get_run("r-1", user, session_id=session)
            assert record is not None
            assert (record.user_id, record.session_id) == (user, session)
        assert await memory.get_run("r-1", "carol") is None

    async def test_is_refused_too_if_both_begin_at_one_moment(
        self, memory: SQLMemory, another: SQLMemory
    ) -> None:
        agents = [agent_of(ScriptedModel(then="ok"), each) for each in (memory, memory, another)]
        async with asyncio.timeout(DEADLINE_S):
            told = await asyncio.gather(
                *(agent.run(f"{n}", "alice", run_id="r-1") for n, agent in enumerate(agents)),
                return_exceptions=True,
            )
        assert sorted(type(each).__name__ for each in told) == [
            *["RunIdReusedError"] * 2,
            "RunOutput",
        ]
        assert await memory.size("alice") == 2
