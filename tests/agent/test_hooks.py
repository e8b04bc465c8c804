"""Hooks: what they see, when they run, and what a rejection leaves behind."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING

import pytest

from agno_sql.agent.context import HookInput
from agno_sql.agent.events import RunFailed, TextDelta
from agno_sql.errors import InputRejectedError, OutputRejectedError, RejectedError
from agno_sql.memory.in_memory import InMemory
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
    from collections.abc import Callable


def plain_reject_input(_: HookInput) -> None:
    raise InputRejectedError("not here")


async def async_reject_input(_: HookInput) -> None:
    raise InputRejectedError("not here")


def plain_reject_output(_: HookInput) -> None:
    raise OutputRejectedError("not that")


async def async_reject_output(_: HookInput) -> None:
    raise OutputRejectedError("not that")


def look_up() -> str:
    return "found"


async def test_hooks_run_in_order_before_and_after_the_model_and_see_the_run() -> None:
    seen: list[tuple[str, HookInput | None]] = []

    def noting(name: str) -> Callable[[HookInput], None]:
        def plain(given: HookInput) -> None:
            seen.append((name, given))

        return plain

    def noting_async(name: str) -> Callable[[HookInput], object]:
        async def awaited(given: HookInput) -> None:
            await asyncio.sleep(0)
            seen.append((name, given))

        return awaited

    def answer(_: object) -> str:
        seen.append(("model", None))
        return "hello"

    agent = agent_of(
        ScriptedModel(answer),
        pre_hooks=[noting("pre 1"), noting_async("pre 2"), noting("pre 3")],
        post_hooks=[noting_async("post 1"), noting("post 2")],
    )
    await agent.run("hi", "alice", session_id="s", run_id="r-1")

    assert [name for name, _ in seen] == ["pre 1", "pre 2", "pre 3", "model", "post 1", "post 2"]
    before = HookInput(user_id="alice", session_id="s", run_id="r-1", input="hi")
    after = HookInput(user_id="alice", session_id="s", run_id="r-1", input="hi", output="hello")
    assert [given for _, given in seen] == [before, before, before, None, after, after]


@pytest.mark.guarantee("G25")
@pytest.mark.parametrize("reject", [plain_reject_input, async_reject_input])
async def test_a_rejected_input_is_not_stored_and_the_model_is_not_asked(
    reject: Callable[[HookInput], object],
) -> None:
    memory, model = InMemory(), ScriptedModel()
    later: list[HookInput] = []
    agent = agent_of(model, memory, pre_hooks=[reject, later.append], post_hooks=[later.append])

    with pytest.raises(InputRejectedError, match="not here") as caught:
        await agent.run("hi", "alice")

    assert isinstance(caught.value, RejectedError)
    assert (model.shown, later, await memory.size("alice")) == ([], [], 0)


@pytest.mark.guarantee("G25")
@pytest.mark.parametrize("reject", [plain_reject_output, async_reject_output])
async def test_a_rejected_answer_is_not_stored_but_the_question_and_the_tool_exchange_are(
    reject: Callable[[HookInput], object],
) -> None:
    memory = InMemory()
    later: list[HookInput] = []
    model = ScriptedModel(asks(call("look_up")), "forbidden words")
    agent = agent_of(model, memory, tools=[look_up], post_hooks=[reject, later.append])

    with pytest.raises(OutputRejectedError, match="not that"):
        await agent.run("hi", "alice")

    stored = await memory.get_messages("alice")
    assert (roles(stored), later) == (["user", "assistant", "tool"], [])
    assert "forbidden words" not in contents(stored)
    assert await refused_by_a_provider(memory, "alice") is None


async def test_post_hooks_judge_the_answer_only_and_not_the_rounds_before() -> None:
    judged: list[str | None] = []
    model = ScriptedModel(asks(call("look_up"), text="Let me see."), "done")
    agent = agent_of(model, tools=[look_up], post_hooks=[lambda given: judged.append(given.output)])
    await agent.run("hi")
    assert judged == ["done"]


async def test_a_streamed_rejection_is_the_last_event() -> None:
    memory = InMemory()
    refusing = agent_of(ScriptedModel(), memory, pre_hooks=[plain_reject_input])
    (only,) = await events_of(refusing.stream("hi", "alice"))
    assert isinstance(only, RunFailed)
    assert isinstance(only.error, InputRejectedError)

    judging = agent_of(ScriptedModel("bad words"), memory, post_hooks=[async_reject_output])
    *deltas, last = await events_of(judging.stream("hi", "alice"))
    assert deltas == [TextDelta("bad "), TextDelta("words")]
    assert isinstance(last, RunFailed)
    assert isinstance(last.error, OutputRejectedError)
    assert contents(await memory.get_messages("alice")) == ["hi"]


@pytest.mark.parametrize("error", [ValueError("bug"), TimeoutError("slow"), StopIteration()])
@pytest.mark.parametrize("where", ["pre_hooks", "post_hooks"])
async def test_an_error_of_the_hosts_own_ends_the_run_and_is_not_swallowed(
    where: str, error: Exception
) -> None:
    memory = InMemory()

    def fail(_: HookInput) -> None:
        raise error

    agent = agent_of(ScriptedModel("unjudged"), memory, **{where: [fail]})
    expected = RuntimeError if isinstance(error, StopIteration) else type(error)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(expected) as caught:
            await agent.run("hi", "alice")
    assert type(caught.value) is expected
    assert contents(await memory.get_messages("alice")) == ["hi"] * (where == "post_hooks")


async def test_a_streams_reader_gets_the_hosts_own_error_after_the_events() -> None:
    def fail(_: HookInput) -> None:
        raise ValueError("bug")

    agent = agent_of(ScriptedModel("one two"), post_hooks=[fail])
    stream = agent.stream("hi")
    told = [await anext(stream), await anext(stream)]
    with pytest.raises(ValueError, match="bug"):
        await anext(stream)
    assert told == [TextDelta("one "), TextDelta("two")]


async def test_a_plain_hook_may_block_without_holding_up_other_runs() -> None:
    loop = asyncio.get_running_loop()
    entered, release = asyncio.Event(), threading.Event()

    def block(given: HookInput) -> None:
        if given.user_id == "alice":
            loop.call_soon_threadsafe(entered.set)
            release.wait(timeout=20)

    agent = agent_of(ScriptedModel(then="ok"), pre_hooks=[block])
    blocked = asyncio.create_task(agent.run("hi", "alice"))
    try:
        async with asyncio.timeout(DEADLINE_S):
            await entered.wait()
            await asyncio.gather(*(agent.run("hi", f"user-{n}") for n in range(20)))
        assert not blocked.done()
    finally:
        release.set()
    assert (await blocked).content == "ok"


def test_a_hook_cannot_change_what_it_is_shown() -> None:
    given = HookInput(user_id="alice", session_id="s", run_id="r", input="hi")
    with pytest.raises(FrozenInstanceError):
        given.input = "something else"  # type: ignore[misc]
