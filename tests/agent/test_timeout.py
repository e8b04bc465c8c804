"""Time limits of a run: what they end, what they leave, and what is not mistaken for them."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from agno_sql.agent.events import RunFailed, TextDelta
from agno_sql.errors import ModelTimeoutError, RunTimeoutError
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

    from agno_sql.agent.context import HookInput

SHORT = timedelta(milliseconds=50)
LONG = timedelta(hours=1)


async def never(*_: object) -> str:
    await asyncio.Event().wait()
    return "never"


@pytest.mark.parametrize("limit", [timedelta(microseconds=1), SHORT])
async def test_a_run_that_takes_too_long_ends_with_an_error_that_names_it(
    limit: timedelta,
) -> None:
    memory = InMemory()
    agent = agent_of(ScriptedModel(never), memory)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(RunTimeoutError, match="r-1") as caught:
            await agent.run("go", "alice", run_id="r-1", timeout=limit)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.retryable
    assert contents(await memory.get_messages("alice")) in ([], ["go"])
    assert await refused_by_a_provider(memory, "alice") is None


async def test_the_limit_holds_in_an_async_tool_which_is_cancelled() -> None:
    memory, cancelled = InMemory(), asyncio.Event()

    async def wait() -> None:
        try:
            await never()
        finally:
            cancelled.set()

    agent = agent_of(ScriptedModel(asks(call("wait"))), memory, tools=[wait])
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(RunTimeoutError):
            await agent.run("go", "alice", timeout=SHORT)
    assert cancelled.is_set()
    assert roles(await memory.get_messages("alice")) == ["user", "assistant", "tool"]
    assert await refused_by_a_provider(memory, "alice") is None


async def test_the_limit_holds_in_a_plain_tool_which_can_only_be_left_alone() -> None:
    memory, release = InMemory(), threading.Event()

    def block() -> bool:
        return release.wait(timeout=20)

    agent = agent_of(ScriptedModel(asks(call("block"))), memory, tools=[block])
    try:
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(RunTimeoutError):
                await agent.run("go", "alice", timeout=SHORT)
    finally:
        release.set()
    (result,) = contents(await memory.get_messages("alice"), "tool")
    assert "RunTimeoutError" in result


@pytest.mark.parametrize("where, left", [("pre_hooks", []), ("post_hooks", ["go"])])
async def test_the_limit_holds_in_hooks(where: str, left: list[str]) -> None:
    memory = InMemory()
    agent = agent_of(ScriptedModel("unjudged"), memory, **{where: [never]})
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(RunTimeoutError):
            await agent.run("go", "alice", timeout=SHORT)
    assert contents(await memory.get_messages("alice")) == left


async def test_a_stream_that_takes_too_long_ends_with_the_error_as_its_last_event() -> None:
    memory = InMemory()
    agent = agent_of(ScriptedModel(asks(call("never"), text="hm")), memory, tools=[never_tool()])
    async with asyncio.timeout(DEADLINE_S):
        told = await events_of(agent.stream("go", "alice", timeout=SHORT))
    assert told[0] == TextDelta("hm")
    assert isinstance(told[-1], RunFailed)
    assert isinstance(told[-1].error, RunTimeoutError)
    assert roles(await memory.get_messages("alice")) == ["user", "assistant", "tool"]


def never_tool() -> Callable[[], object]:
    async def never() -> None:
        await asyncio.Event().wait()

    return never


async def test_a_timeout_of_the_provider_is_not_the_runs() -> None:
    error = ModelTimeoutError("no answer within 60 s")
    for timeout in (None, LONG):
        with pytest.raises(ModelTimeoutError) as caught:
            await agent_of(ScriptedModel(error)).run("go", timeout=timeout)
        assert caught.value is error


async def test_a_timeout_error_of_a_hook_is_not_the_runs() -> None:
    def fail(_: HookInput) -> None:
        raise TimeoutError("the checker is slow")

    with pytest.raises(TimeoutError, match="the checker is slow") as caught:
        await agent_of(ScriptedModel("ok"), post_hooks=[fail]).run("go", timeout=LONG)
    assert not isinstance(caught.value, RunTimeoutError)


async def test_a_time_limit_around_the_run_is_not_the_runs() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await agent_of(ScriptedModel(never)).run("go", timeout=LONG)
    assert not isinstance(caught.value, RunTimeoutError)


async def test_a_cancelled_run_with_a_time_limit_is_cancelled() -> None:
    entered = asyncio.Event()

    async def think(_: object) -> str:
        entered.set()
        return await never()

    run = asyncio.create_task(agent_of(ScriptedModel(think)).run("go", timeout=LONG))
    async with asyncio.timeout(DEADLINE_S):
        await entered.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


@pytest.mark.parametrize("limit", [LONG, timedelta.max])
async def test_a_limit_that_is_not_reached_changes_nothing(limit: timedelta) -> None:
    output = await agent_of(ScriptedModel("ok")).run("go", timeout=limit)
    assert output.content == "ok"
