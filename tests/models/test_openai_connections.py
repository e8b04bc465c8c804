"""Retries, cancellation, concurrency and event loops of OpenAIChat."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import openai
import pytest

from agno_sql.errors import ModelError, ModelUnavailableError
from agno_sql.message import Message
from agno_sql.models.chat_model import ModelReply
from agno_sql.testing.openai_server import Reply, ScriptedOpenAI
from tests.models.openai_calls import HELLO, SOON, ask, chat

if TYPE_CHECKING:
    from agno_sql.models.openai_chat import OpenAIChat


@pytest.mark.parametrize("way", ["reply", "stream"])
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_what_may_pass_is_tried_again_as_often_as_asked(status: int, way: str) -> None:
    fails = Reply(status=status, headers=SOON)
    with ScriptedOpenAI([fails, fails, Reply(text="At last")]) as server:
        assert await ask(chat(server, max_retries=2), way) == ModelReply("At last")
    assert len(server.requests) == 3


async def test_retries_end_with_the_error() -> None:
    with ScriptedOpenAI([Reply(status=503, headers=SOON)] * 9) as server:
        with pytest.raises(ModelUnavailableError):
            await chat(server, max_retries=3).reply(HELLO, [])
        assert len(server.requests) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_can_not_pass_is_not_tried_again(status: int) -> None:
    with ScriptedOpenAI([Reply(status=status, headers=SOON)] * 9) as server:
        with pytest.raises(ModelError):
            await chat(server, max_retries=3).reply(HELLO, [])
        assert len(server.requests) == 1


async def test_closing_a_stream_closes_its_connection_at_once() -> None:
    reply = Reply(text="one two", hold=threading.Event(), hold_after_words=1)
    with ScriptedOpenAI([reply]) as server:
        async with aclosing(chat(server).stream(HELLO, [])) as stream:
            assert await anext(stream) == "one "
        await asyncio.to_thread(server.wait_for_disconnects)


@pytest.mark.parametrize("way, words_first", [("reply", None), ("stream", None), ("stream", 1)])
async def test_a_cancelled_call_closes_its_connection_and_stays_cancelled(
    way: str, words_first: int | None
) -> None:
    reply = Reply(text="one two", hold=threading.Event(), hold_after_words=words_first)
    with ScriptedOpenAI([reply]) as server:
        call = asyncio.create_task(ask(chat(server), way))
        await asyncio.to_thread(server.wait_for_requests, 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(server.wait_for_disconnects)


async def test_a_hundred_calls_at_once_each_get_their_own_answer() -> None:
    def echo(body: dict[str, Any]) -> Reply:
        return Reply(text=body["messages"][-1]["content"])

    async def one(model: OpenAIChat, text: str) -> str:
        if text.endswith("0"):
            return (await model.reply([Message.user(text)], [])).content
        return "".join(
            [p async for p in model.stream([Message.user(text)], []) if isinstance(p, str)]
        )

    texts = [f"user {n}" for n in range(100)]
    with ScriptedOpenAI(echo) as server:
        model = chat(server)
        assert await asyncio.gather(*(one(model, text) for text in texts)) == texts


async def test_calls_that_start_at_once_share_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class CountedClient(openai.AsyncOpenAI):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(openai, "AsyncOpenAI", CountedClient)
    with ScriptedOpenAI([Reply()] * 11) as server:
        model = chat(server)
        await asyncio.gather(*(ask(model, "reply") for _ in range(10)))
        assert [client.is_closed() for client in made] == [False]
        await model.aclose()
        assert made[0].is_closed()
        await ask(model, "stream")
    assert len(made) == 2


def test_one_model_serves_one_event_loop_after_another() -> None:
    with ScriptedOpenAI([Reply(text="first"), Reply(text="second")]) as server:
        model = chat(server)
        assert asyncio.run(ask(model, "reply")) == ModelReply("first")
        gc.collect()
        assert asyncio.run(ask(model, "stream")) == ModelReply("second")


async def test_a_closed_model_opens_anew() -> None:
    with ScriptedOpenAI([Reply(text="first"), Reply(text="second")]) as server:
        model = chat(server)
        await model.aclose()
        assert await ask(model, "reply") == ModelReply("first")
        await model.aclose()
        await model.aclose()
        assert await ask(model, "reply") == ModelReply("second")
