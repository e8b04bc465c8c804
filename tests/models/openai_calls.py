"""How the tests of OpenAIChat ask it, and what a scripted server answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agno_sql.errors import ModelError
from agno_sql.message import Message
from agno_sql.models.chat_model import ModelReply, ToolSpec
from agno_sql.models.openai_chat import OpenAIChat
from agno_sql.testing.openai_server import Reply, ScriptedOpenAI

HELLO = [Message.user("Hello")]
KEY = "sk-proj-0123456789abcdef"
SOON = {"retry-after-ms": "1"}


def chat(server: ScriptedOpenAI, **options: Any) -> OpenAIChat:
    return OpenAIChat("m-1", base_url=server.base_url, **{"max_retries": 0, **options})


async def pieces(model: OpenAIChat, tools: tuple[ToolSpec, ...] = ()) -> list[str | ModelReply]:
    return [piece async for piece in model.stream(HELLO, tools)]


async def ask(model: OpenAIChat, way: str) -> ModelReply:
    if way == "reply":
        return await model.reply(HELLO, [])
    *_, last = await pieces(model)
    assert isinstance(last, ModelReply)
    return last


async def failure(reply: Reply, way: str = "reply", **options: Any) -> ModelError:
    with ScriptedOpenAI([reply]) as server, pytest.raises(ModelError) as caught:
        await ask(chat(server, **options), way)
    return caught.value


def completion(message: Any, **choice: Any) -> Reply:
    choices = [{"index": 0, "message": message, "finish_reason": "stop", **choice}]
    return Reply(raw_body=json.dumps({"id": "x", "object": "chat.completion", "choices": choices}))


def events(*deltas: dict[str, Any], finish: str | None = "stop") -> Reply:
    lines = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    lines.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return Reply(raw_body="".join(f"data: {json.dumps(line)}\n\n" for line in lines))
