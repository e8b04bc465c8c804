"""An agent, a real model server and a real database, end to end."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.agent.events import RunCompleted, RunFailed, TextDelta, ToolReturned
from agno_sql.errors import ModelTimeoutError, ModelUnavailableError, RunTimeoutError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import ToolCall, Usage
from agno_sql.models.openai_chat import OpenAIChat
from agno_sql.testing.openai_server import Reply, ScriptedOpenAI
from tests.agent.models import (
    DEADLINE_S,
    agent_of,
    call,
    contents,
    events_of,
    refused_by_a_provider,
    roles,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agno_sql.agent.agent import Agent

CALLS = (call("look_up", "c1", order=1), ToolCall("c2", "look_up", '{"order": "two"}'))
ASKING = Reply(text="Let me see.", tool_calls=CALLS, usage=Usage(10, 2))


def look_up(order: int) -> str:
    """Look an order up."""
    return f"order {order} \x00 \ud800"


@asynccontextmanager
async def agent_at(server: ScriptedOpenAI, url: str, **parts: Any) -> AsyncIterator[Agent]:
    """Yield an agent of *server*'s model with its conversations at *url*."""
    model = OpenAIChat("m-1", base_url=server.base_url, api_key="k", max_retries=0)
    async with SQLMemory.open(url) as memory:
        yield agent_of(model, memory, tools=[look_up], **parts)
    await model.aclose()


@pytest.mark.parametrize("way", ["run", "stream"])
async def test_a_tool_exchange_goes_over_the_wire_and_again_after_a_restart(
    database_url: str, way: str
) -> None:
    script = [ASKING, Reply(text="Both are on their way", usage=Usage(20, 5)), Reply(text="Still")]
    with ScriptedOpenAI(script) as server:
        async with agent_at(server, database_url, instructions="Be kind.") as agent:
            if way == "run":
                output = await agent.run("Where are 1 and 2?", "alice")
            else:
                *told, last = await events_of(agent.stream("Where are 1 and 2?", "alice"))
                assert isinstance(last, RunCompleted)
                output = last.output
                texts = [event.text for event in told if isinstance(event, TextDelta)]
                assert "".join(texts) == "Let me see.Both are on their way"
                assert sum(isinstance(event, ToolReturned) for event in told) == 2
        async with agent_at(server, database_url) as agent:
            await agent.run("And now?", "alice")
        first, second, third = (request.body["messages"] for request in server.requests)

    assert first == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Where are 1 and 2?"},
    ]
    exchange = second[2:]
    assert [message["role"] for message in exchange] == ["assistant", "tool", "tool"]
    sent = [(c["id"], c["function"]["arguments"]) for c in exchange[0]["tool_calls"]]
    assert sent == [(c.id, c.arguments) for c in CALLS]
    assert [message["tool_call_id"] for message in exchange[1:]] == ["c1", "c2"]
    assert exchange[1]["content"] == "order 1 \x00 \ufffd"
    assert "integer" in exchange[2]["content"]
    assert third[1:4] == exchange
    assert [message["content"] for message in third[4:]] == ["Both are on their way", "And now?"]
    assert output.usage == Usage(30, 7)
    assert output.messages[2].content == "order 1 \x00 \ud800", "what is stored stays exact"


async def test_a_provider_that_is_down_leaves_a_conversation_that_goes_on(
    database_url: str,
) -> None:
    with ScriptedOpenAI([ASKING, Reply(status=503), Reply(text="Back again")]) as server:
        async with agent_at(server, database_url) as agent:
            with pytest.raises(ModelUnavailableError):
                await agent.run("one", "alice")
            output = await agent.run("two", "alice")
            stored = await agent.memory.get_messages("alice")
    assert output.content == "Back again"
    assert roles(stored) == ["user", "assistant", "tool", "tool", "user", "assistant"]


async def test_half_a_stream_is_told_but_not_stored(database_url: str) -> None:
    with ScriptedOpenAI([Reply(text="one two three", cut_after_words=2)]) as server:
        async with agent_at(server, database_url) as agent:
            *told, last = await events_of(agent.stream("go", "alice"))
            stored = await agent.memory.get_messages("alice")
    assert told == [TextDelta("one "), TextDelta("two ")]
    assert isinstance(last, RunFailed)
    assert last.error.retryable
    assert contents(stored) == ["go"]


@pytest.mark.parametrize("way", ["run", "stream"])
async def test_cancelling_a_run_hangs_up_on_the_provider(sqlite_url: str, way: str) -> None:
    held = Reply(text="one two", hold=threading.Event())
    with ScriptedOpenAI([held]) as server:
        async with agent_at(server, sqlite_url) as agent:
            begun = (
                agent.run("go", "alice") if way == "run" else events_of(agent.stream("go", "alice"))
            )
            run: asyncio.Task[Any] = asyncio.create_task(begun)
            await asyncio.to_thread(server.wait_for_requests, 1)
            run.cancel()
            async with asyncio.timeout(DEADLINE_S):
                with pytest.raises(asyncio.CancelledError):
                    await run
            await asyncio.to_thread(server.wait_for_disconnects)
            assert contents(await agent.memory.get_messages("alice")) == ["go"]
            assert await refused_by_a_provider(agent.memory, "alice") is None


async def test_closing_a_stream_hangs_up_on_the_provider(sqlite_url: str) -> None:
    held = Reply(text="one two", hold=threading.Event(), hold_after_words=1)
    with ScriptedOpenAI([held]) as server:
        async with agent_at(server, sqlite_url) as agent:
            async with aclosing(agent.stream("go", "alice")) as stream:
                assert await anext(stream) == TextDelta("one ")
            await asyncio.to_thread(server.wait_for_disconnects)
            assert contents(await agent.memory.get_messages("alice")) == ["go"]


async def test_the_runs_time_limit_and_the_models_are_told_apart(sqlite_url: str) -> None:
    held = Reply(hold=threading.Event())
    with ScriptedOpenAI([held, held]) as server:
        async with agent_at(server, sqlite_url) as agent:
            with pytest.raises(RunTimeoutError):
                await agent.run("go", "alice", timeout=timedelta(milliseconds=100))
            impatient = OpenAIChat(
                "m-1",
                base_url=server.base_url,
                api_key="k",
                max_retries=0,
                timeout=timedelta(milliseconds=100),
            )
            with pytest.raises(ModelTimeoutError):
                await agent_of(impatient, agent.memory).run(
                    "go", "alice", timeout=timedelta(hours=1)
                )
            await impatient.aclose()


async def test_the_schema_of_a_tool_goes_over_the_wire(sqlite_url: str) -> None:
    with ScriptedOpenAI([Reply(text="ok")]) as server:
        async with agent_at(server, sqlite_url) as agent:
            await agent.run("go", "alice")
        (tool,) = server.requests[0].body["tools"]
    assert tool["function"]["name"] == "look_up"
    assert tool["function"]["description"] == "Look an order up."
    assert tool["function"]["parameters"]["properties"]["order"]["type"] == "integer"
    assert json.loads(json.dumps(tool)) == tool
