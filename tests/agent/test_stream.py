"""Streams: events in order, one ending, and a run that ends when its reader goes away."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.agent.events import RunCompleted, RunFailed, TextDelta, ToolCalled, ToolReturned
from agno_sql.errors import (
    AgnoSQLError,
    MaxLoopsError,
    ModelTimeoutError,
    ModelUnavailableError,
    RateLimitError,
    StreamCutError,
)
from agno_sql.memory.in_memory import InMemory
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
    refused_by_a_provider,
    roles,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from agno_sql.models.chat_model import ToolSpec


class HeldModel(ScriptedModel):
    """Streams "one ", then waits to be let go, then streams the rest; tells when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on, self.closed = asyncio.Event(), asyncio.Event()

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        try:
            yield "one "
            await self.go_on.wait()
            yield "two"
            yield ModelReply("one two")
        finally:
            self.closed.set()


class NoReplyModel(ScriptedModel):
    """Streams text, and never the reply."""

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        yield "half an ans"


class WatchedMemory(InMemory):
    """Tells when an answer is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = asyncio.Event()

    async def extend(self, messages: Any, *args: Any, **kwargs: Any) -> list[Message]:
        stored = await super().extend(messages, *args, **kwargs)
        if stored[-1].role == "assistant":
            self.answered.set()
        return stored


def look_up(order: int) -> str:
    return f"order {order}"


async def test_a_stream_tells_text_calls_results_and_at_last_what_run_would_return() -> None:
    memory = InMemory()
    wanted = call("look_up", order=7)
    model = ScriptedModel(
        asks(wanted, text="Let me see.", usage=Usage(5, 2)),
        ModelReply("It is on its way", usage=Usage(9, 4)),
    )
    agent = agent_of(model, memory, tools=[look_up], instructions="Be kind.")

    told = await events_of(agent.stream("Where is 7?", "alice", session_id="s", run_id="r-1"))

    stored = await memory.get_messages("alice", session_id="s")
    result = stored[2]
    assert told[:-1] == [
        *map(TextDelta, ["Let ", "me ", "see."]),
        ToolCalled(wanted),
        ToolReturned(wanted, result),
        *map(TextDelta, ["It ", "is ", "on ", "its ", "way"]),
    ]
    assert isinstance(told[-1], RunCompleted)
    output = told[-1].output
    assert output.messages == tuple(stored)
    assert (output.content, output.usage) == ("It is on its way", Usage(14, 6))
    assert roles(stored) == ["user", "assistant", "tool", "assistant"]
    assert contents(model.shown[1]) == ["Be kind.", "Where is 7?", "Let me see.", "order 7"]


async def test_results_are_told_and_stored_as_they_come() -> None:
    memory, second_is_done = InMemory(), asyncio.Event()

    async def first() -> str:
        await second_is_done.wait()
        return "first"

    async def second() -> str:
        return "second"

    model = ScriptedModel(asks(call("first", "c1"), call("second", "c2")), "done")
    agent = agent_of(model, memory, tools=[first, second])
    returned = []
    async with asyncio.timeout(DEADLINE_S), aclosing(agent.stream("go", "alice")) as events:
        async for event in events:
            if isinstance(event, ToolReturned):
                returned.append(event.message.content)
                second_is_done.set()
    assert returned == ["second", "first"]
    assert contents(await memory.get_messages("alice"), "tool") == ["second", "first"]


@pytest.mark.parametrize(
    "error",
    [ModelUnavailableError("down"), RateLimitError("slower"), ModelTimeoutError("no answer")],
)
async def test_a_model_error_is_the_last_event_and_leaves_the_question(error: AgnoSQLError) -> None:
    memory = InMemory()
    told = await events_of(agent_of(ScriptedModel(error), memory).stream("hi", "alice"))
    assert told == [RunFailed(error)]
    assert contents(await memory.get_messages("alice")) == ["hi"]


async def test_too_many_loops_are_told_with_what_there_is() -> None:
    model = ScriptedModel(then=asks(call("look_up", order=1), text="more"))
    agent = agent_of(model, tools=[look_up], max_loops=2)
    last = (await events_of(agent.stream("hi")))[-1]
    assert isinstance(last, RunFailed)
    assert isinstance(last.error, MaxLoopsError)
    assert last.error.output.content == "more"
    assert roles(last.error.output.messages) == ["user", "assistant", "tool"]


@pytest.mark.guarantee("G27")
async def test_a_stream_that_ends_without_a_reply_fails_and_half_an_answer_is_not_stored() -> None:
    memory = InMemory()
    first, last = await events_of(agent_of(NoReplyModel(), memory).stream("hi", "alice"))
    assert first == TextDelta("half an ans")
    assert isinstance(last, RunFailed)
    assert isinstance(last.error, StreamCutError)
    assert contents(await memory.get_messages("alice")) == ["hi"]


async def test_an_error_that_is_none_of_ours_is_raised_to_the_reader() -> None:
    with pytest.raises(ZeroDivisionError):
        await events_of(agent_of(ScriptedModel(ZeroDivisionError())).stream("hi"))


async def test_closing_a_stream_early_cancels_the_run_and_frees_the_models_connection() -> None:
    memory, model = InMemory(), HeldModel()
    stream = agent_of(model, memory).stream("hi", "alice")
    assert await anext(stream) == TextDelta("one ")

    await stream.aclose()

    assert model.closed.is_set()
    model.go_on.set()
    assert contents(await memory.get_messages("alice")) == ["hi"]
    assert await refused_by_a_provider(memory, "alice") is None


async def test_cancelling_the_task_that_reads_cancels_the_run_too() -> None:
    memory, model, reading = InMemory(), HeldModel(), asyncio.Event()
    agent = agent_of(model, memory)

    async def read() -> None:
        async for _ in agent.stream("hi", "alice"):
            reading.set()

    reader = asyncio.create_task(read())
    async with asyncio.timeout(DEADLINE_S):
        await reading.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await model.closed.wait()
    assert contents(await memory.get_messages("alice")) == ["hi"]
    assert await refused_by_a_provider(memory, "alice") is None


async def test_a_stream_nobody_reads_does_nothing() -> None:
    memory, model = InMemory(), ScriptedModel()
    stream = agent_of(model, memory).stream("hi", "alice")
    await stream.aclose()
    assert (model.shown, await memory.size("alice")) == ([], 0)


async def test_closing_a_stream_after_its_end_changes_nothing() -> None:
    memory = InMemory()
    stream = agent_of(ScriptedModel("ok"), memory).stream("hi", "alice")
    told = [event async for event in stream]
    await stream.aclose()
    assert isinstance(told[-1], RunCompleted)
    assert contents(await memory.get_messages("alice")) == ["hi", "ok"]


async def test_an_answer_that_is_stored_stays_when_its_stream_is_closed_unread() -> None:
    memory = WatchedMemory()
    stream = agent_of(ScriptedModel("one two three"), memory).stream("hi", "alice")
    async with asyncio.timeout(DEADLINE_S):
        await anext(stream)
        await memory.answered.wait()
    await stream.aclose()
    assert contents(await memory.get_messages("alice")) == ["hi", "one two three"]


async def test_a_slow_reader_does_not_slow_the_run_down_and_misses_nothing() -> None:
    memory = WatchedMemory()
    stream = agent_of(ScriptedModel("one two three"), memory).stream("hi", "alice")
    async with asyncio.timeout(DEADLINE_S):
        first = await anext(stream)
        await memory.answered.wait()  # nobody has asked for the second event yet
        rest = [event async for event in stream]
    assert [first, *rest[:-1]] == [TextDelta("one "), TextDelta("two "), TextDelta("three")]
    assert isinstance(rest[-1], RunCompleted)


async def test_each_event_may_be_read_by_another_task() -> None:
    stream = agent_of(ScriptedModel("one two")).stream("hi")
    told = []
    async with asyncio.timeout(DEADLINE_S):
        while (event := await asyncio.create_task(anext_or_none(stream))) is not None:
            told.append(event)
    assert told[:-1] == [TextDelta("one "), TextDelta("two")]
    assert isinstance(told[-1], RunCompleted)


async def anext_or_none(stream: AsyncGenerator[Any, None]) -> Any:
    return await anext(stream, None)


async def test_streams_of_many_users_at_once_tell_each_reader_its_own_run() -> None:
    memory = InMemory()

    def echo(shown: Sequence[Message]) -> str:
        return f"you said {shown[-1].content}"

    agent = agent_of(ScriptedModel(then=echo), memory)

    async def read(user: str) -> str:
        told = await events_of(agent.stream(f"I am {user}", user))
        assert isinstance(told[-1], RunCompleted)
        assert told[-1].output.user_id == user
        return "".join(event.text for event in told if isinstance(event, TextDelta))

    users = [f"user-{n}" for n in range(100)]
    assert await asyncio.gather(*map(read, users)) == [f"you said I am {user}" for user in users]
