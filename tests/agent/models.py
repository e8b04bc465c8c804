"""A model that says what a test tells it to, and refuses what a provider would refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias

from agno_sql.agent.agent import Agent
from agno_sql.agent.events import RunCompleted, RunFailed
from agno_sql.errors import ModelRequestError
from agno_sql.memory.in_memory import InMemory
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.models.chat_model import ModelReply
from agno_sql.testing.wire_rules import violation

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from agno_sql.agent.events import RunEvent
    from agno_sql.memory.protocol import Memory
    from agno_sql.models.chat_model import ToolSpec

Answer: TypeAlias = ModelReply | str | BaseException
Step: TypeAlias = Answer | Callable[[Sequence[Message]], Answer | Awaitable[Answer]]

DEADLINE_S = 30.0


class ScriptedModel:
    """A ChatModel that takes one step of its script for each call, then always *then*.

    A step is a reply, its text, an error to raise, or a function of the messages that were shown.
    Keeps what it was shown, and raises ModelRequestError for what OpenAI would not accept.
    """

    name = "scripted-1"

    def __init__(self, *steps: Step, then: Step | None = None) -> None:
        self._steps: Iterator[Step] = iter(steps)
        self._then = then
        self.shown: list[list[Message]] = []
        self.offered: list[list[ToolSpec]] = []

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> ModelReply:
        self.shown.append(list(messages))
        self.offered.append(list(tools))
        if broken := violation(as_wire(messages)):
            raise ModelRequestError(broken)
        step = next(self._steps, self._then)
        assert step is not None, "the script is used up"
        answer = step(messages) if callable(step) else step
        if isawaitable(answer):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return ModelReply(answer) if isinstance(answer, str) else answer

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        reply = await self.reply(messages, tools)
        for piece in pieces(reply.content):
            yield piece
        yield reply


def pieces(text: str) -> list[str]:
    """Return *text* cut behind its blanks."""
    return re.findall(r"\S+\s*|\s+", text)


def agent_of(model: Any, memory: Memory | None = None, **parts: Any) -> Agent:
    """Return an agent of *model*, with a memory of its own where none is given."""
    return Agent(name="tester", model=model, memory=memory or InMemory(capacity=None), **parts)


def call(tool: str, call_id: str = "call_1", **arguments: Any) -> ToolCall:
    """Return a model's call of *tool*."""
    return ToolCall(call_id, tool, json.dumps(arguments))


def asks(*calls: ToolCall, text: str = "", usage: Usage | None = None) -> ModelReply:
    """Return a reply that wants *calls*."""
    return ModelReply(text, calls, usage or Usage())


def contents(messages: Iterable[Message], role: str | None = None) -> list[str]:
    """Return the contents of *messages*, of those of one *role* if it is given."""
    return [message.content for message in messages if role in (None, message.role)]


def roles(messages: Iterable[Message]) -> list[str]:
    """Return the roles of *messages*."""
    return [message.role for message in messages]


async def events_of(stream: AsyncGenerator[RunEvent, None]) -> list[RunEvent]:
    """Return all events of *stream*; the last one, and no other, is an ending."""
    async with aclosing(stream) as events:
        told = [event async for event in events]
    endings = [isinstance(event, RunCompleted | RunFailed) for event in told]
    assert endings.index(True) == len(endings) - 1, "a stream has one ending, its last event"
    return told


async def refused_by_a_provider(memory: Memory, user_id: str, **conversation: str) -> str | None:
    """Return what a provider finds wrong in what the next run shows it; ``None`` if nothing.

    Asks by a run of its own, of a new agent, as a host would go on.
    """
    model = ScriptedModel("going on")
    agent = agent_of(model, memory)
    try:
        await agent.run("and now?", user_id, **conversation)  # type: ignore[arg-type]
    except ModelRequestError as error:
        return str(error)
    return None


def as_wire(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return *messages* as the Chat Completions API takes them."""
    return [_as_wire(message) for message in messages]


def _as_wire(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "tool":
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": wanted.id,
                "type": "function",
                "function": {
                    "name": re.sub("[^a-zA-Z0-9_-]", "_", wanted.name)[:64],
                    "arguments": wanted.arguments,
                },
            }
            for wanted in message.tool_calls
        ]
    return wire
