"""OpenAIChat against a real HTTP server, through the real client."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import subprocess
import sys
import threading
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import openai
import pytest

from agno_sql.errors import (
    BadReplyError,
    ContentFilterError,
    ContextTooLongError,
    InvalidOptionError,
    ModelAuthenticationError,
    ModelError,
    ModelRequestError,
    ModelTimeoutError,
    ModelUnavailableError,
    RateLimitError,
    StreamCutError,
)
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.models.chat_model import ModelReply, ToolSpec
from agno_sql.models.openai_chat import OpenAIChat
from agno_sql.testing.openai_server import Reply, ScriptedOpenAI

HELLO = [Message.user("Hello")]
WEATHER = ToolSpec("weather", "Tells the weather.", {"type": "object", "properties": {}})
ROME = ToolCall("call_1", "weather", '{"city":  "Rome", "days": 3}')
OSLO = ToolCall("call_2", "weather", '{"city": "Oslo"} ')
KEY = "sk-proj-0123456789abcdef"
SOON = {"retry-after-ms": "1"}


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


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


# What is sent


async def test_a_conversation_goes_out_in_the_words_of_the_api() -> None:
    conversation = [
        Message.system("Be brief."),
        Message.user("Rome?", name="Alice"),
        Message.assistant("", [ROME, OSLO]),
        Message.tool("sunny", tool_call_id="call_1", name="weather"),
        Message.tool("", tool_call_id="call_2"),
        Message.assistant("Sunny."),
        Message.user(""),
    ]
    with ScriptedOpenAI([Reply()]) as server:
        await chat(server).reply(conversation, [])

    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in (ROME, OSLO)
    ]
    [request] = server.requests
    assert request.body == {
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Rome?", "name": "Alice"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
            {"role": "tool", "content": "", "tool_call_id": "call_2"},
            {"role": "assistant", "content": "Sunny."},
            {"role": "user", "content": ""},
        ],
    }


async def test_what_no_provider_takes_is_replaced_on_the_wire_only() -> None:
    call = ToolCall("id\ud800", "look up.\udc00", '"\udfff"')
    conversation = [
        Message.user("a\ud83d \ud83d\ude00", name="Ann <3\ud800"),
        Message.assistant("b\udc00", [call]),
        Message.tool("c\udfff", tool_call_id="id\ud800"),
    ]
    with ScriptedOpenAI([Reply()]) as server:
        await chat(server).reply(conversation, [])

    user, assistant, tool = server.requests[0].body["messages"]
    assert (user["content"], user["name"]) == ("a\ufffd \ufffd\ufffd", "Ann__3\ufffd")
    assert (assistant["content"], tool["content"]) == ("b\ufffd", "c\ufffd")
    assert assistant["tool_calls"][0]["id"] == tool["tool_call_id"] == "id\ufffd"
    function = {"name": "look_up__", "arguments": '"\ufffd"'}
    assert assistant["tool_calls"][0]["function"] == function
    assert conversation[1].tool_calls == (call,)


async def test_every_option_that_is_set_is_sent() -> None:
    options = {"temperature": 0, "seed": -7, "response_format": {"type": "json_object"}}
    with ScriptedOpenAI([Reply()]) as server:
        model = chat(
            server, **options, max_tokens=9, parallel_tool_calls=False, extra_body={"top_k": 4}
        )
        await model.reply(HELLO, [WEATHER])

    body = server.requests[0].body
    function = {
        "name": "weather",
        "description": WEATHER.description,
        "parameters": dict(WEATHER.parameters),
    }
    assert body.pop("messages") == [{"role": "user", "content": "Hello"}]
    assert body.pop("tools") == [{"type": "function", "function": function}]
    assert body == {
        "model": "m-1",
        **options,
        "max_tokens": 9,
        "parallel_tool_calls": False,
        "top_k": 4,
    }


@pytest.mark.parametrize("way", ["reply", "stream"])
async def test_without_tools_nothing_is_sent_about_them(way: str) -> None:
    with ScriptedOpenAI([Reply()]) as server:
        await ask(chat(server, parallel_tool_calls=True), way)

    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    body = server.requests[0].body
    assert body.pop("messages")
    assert body == {"model": "m-1"} | (streaming if way == "stream" else {})


async def test_openai_itself_is_told_max_completion_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedOpenAI([Reply()]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        await OpenAIChat("m-1", api_key=KEY, max_tokens=9).reply(HELLO, [])

    body = server.requests[0].body
    assert body["max_completion_tokens"] == 9
    assert "max_tokens" not in body


@pytest.mark.parametrize(
    "given, in_environment, sent",
    [(KEY, "sk-other", KEY), (None, "sk-other", "sk-other"), (None, None, "no-key-needed")],
)
async def test_the_key_is_the_given_one_or_that_of_the_environment_or_a_placeholder(
    monkeypatch: pytest.MonkeyPatch, given: str | None, in_environment: str | None, sent: str
) -> None:
    if in_environment:
        monkeypatch.setenv("OPENAI_API_KEY", in_environment)
    with ScriptedOpenAI([Reply()]) as server:
        await chat(server, api_key=given).reply(HELLO, [])

    assert server.requests[0].headers["authorization"] == f"Bearer {sent}"


@pytest.mark.parametrize("base_url", [None, "https://api.openai.com/v1"])
async def test_a_missing_key_is_told_before_anything_is_sent(base_url: str | None) -> None:
    with pytest.raises(ModelAuthenticationError, match=r"OPENAI_API_KEY or pass api_key"):
        await OpenAIChat("m-1", base_url=base_url).reply(HELLO, [])


async def test_a_key_that_no_header_can_carry_is_told_without_showing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    with pytest.raises(ModelAuthenticationError, match="blanks") as caught:
        await OpenAIChat("m-1").reply(HELLO, [])
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "option, values",
    [
        ("model", ["", " ", None, 3]),
        ("base_url", ["", "localhost:80", "ftp://x", "http://", "http://[::1", 3]),
        ("api_key", ["", "sk-\n", "sk-\u00e9", 3]),
        ("temperature", [-0.1, float("nan"), float("inf"), True, "1"]),
        ("max_tokens", [0, -1, 1.5, True]),
        ("seed", [0.5, True, "1"]),
        ("response_format", ["json_object", []]),
        ("parallel_tool_calls", [1, "yes"]),
        ("timeout", [timedelta(), timedelta(seconds=-1), 60, None]),
        ("max_retries", [-1, 1.0, True, None]),
        ("extra_body", ["x", []]),
    ],
)
def test_an_option_out_of_its_bounds_is_refused_by_name(option: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidOptionError, match=rf"^{option} must be"):
            OpenAIChat(**{"model": "m-1", option: value})


def test_repr_and_name_tell_the_model_and_never_a_secret() -> None:
    model = OpenAIChat("m-1", base_url="http://me:pass@host:1/v1?key=k", api_key=KEY)
    assert repr(model) == "OpenAIChat('m-1', base_url='http://host:1/v1')"
    assert repr(OpenAIChat("m-1", api_key=KEY)) == "OpenAIChat('m-1')"
    assert model.name == "m-1"


def test_making_a_model_does_not_import_openai() -> None:
    code = (
        "import sys; from agno_sql.models.openai_chat import OpenAIChat; OpenAIChat('m-1');"
        "sys.exit('openai' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What comes back


@pytest.mark.parametrize("way", ["reply", "stream"])
async def test_text_calls_and_usage_come_back_exactly(way: str) -> None:
    text = " Let me\n\n see  \u00e9\U0001f600. "
    expected = ModelReply(text, (ROME, OSLO), Usage(11, 7))
    with ScriptedOpenAI([Reply(text=text, tool_calls=(ROME, OSLO), usage=Usage(11, 7))]) as server:
        assert await ask(chat(server), way) == expected


@pytest.mark.parametrize("way", ["reply", "stream"])
@pytest.mark.parametrize(
    "reply, expected",
    [
        (Reply(), ModelReply("")),
        (Reply(refusal="I won't."), ModelReply("I won't.")),
        (Reply(text="But", refusal="I won't."), ModelReply("But")),
        (Reply(text="So far", finish_reason="length"), ModelReply("So far")),
    ],
)
async def test_what_is_missing_is_empty(reply: Reply, expected: ModelReply, way: str) -> None:
    with ScriptedOpenAI([reply]) as server:
        assert await ask(chat(server), way) == expected


@pytest.mark.parametrize("reply", [Reply(text="one two  three\n"), Reply(refusal="I won't.")])
async def test_the_pieces_joined_are_the_content(reply: Reply) -> None:
    with ScriptedOpenAI([reply]) as server:
        *texts, last = await pieces(chat(server))

    assert isinstance(last, ModelReply)
    assert "".join(map(str, texts)) == last.content == reply.text + (reply.refusal or "")
    assert len(texts) == (3 if reply.text else 1)


async def test_pieces_arrive_before_the_answer_is_complete() -> None:
    hold = threading.Event()
    with ScriptedOpenAI([Reply(text="one two", hold=hold, hold_after_words=1)]) as server:
        stream = chat(server).stream(HELLO, [])
        assert await anext(stream) == "one "
        hold.set()
        assert [piece async for piece in stream] == ["two", ModelReply("one two")]


@pytest.mark.parametrize("call_type", [{"type": "function"}, {"type": None}, {}])
async def test_calls_without_an_id_get_one_each(call_type: dict[str, Any]) -> None:
    call = {**call_type, "function": {"name": "weather", "arguments": "{}"}}
    with ScriptedOpenAI([completion({"role": "assistant", "tool_calls": [call, call]})]) as server:
        reply = await chat(server).reply(HELLO, [WEATHER])

    assert [(c.name, c.arguments) for c in reply.tool_calls] == [("weather", "{}")] * 2
    assert len({c.id for c in reply.tool_calls} - {""}) == 2


async def test_streamed_calls_are_put_together_by_their_index() -> None:
    def part(index: int | None, arguments: str, **more: Any) -> dict[str, Any]:
        function = {"arguments": arguments, **({"name": "weather"} if more else {})}
        return {"tool_calls": [{"index": index, "function": function, **more}]}

    numbered = events(
        part(1, "", id="b"), part(0, "", id="a"), part(1, '{"x"'), part(0, "{"), part(1, ":1}"),
        part(0, "}"),
    )  # fmt: skip
    unnumbered = events(part(None, "{}", id="a"), part(None, '{"x":1}', id="b"))
    with ScriptedOpenAI([numbered, unnumbered]) as server:
        model = chat(server)
        for reply in (await ask(model, "stream"), await ask(model, "stream")):
            assert reply.tool_calls == (
                ToolCall("a", "weather", "{}"),
                ToolCall("b", "weather", '{"x":1}'),
            )


# What goes wrong


@pytest.mark.parametrize("way", ["reply", "stream"])
@pytest.mark.parametrize(
    "status, code, expected",
    [
        (400, None, ModelRequestError),
        (400, "context_length_exceeded", ContextTooLongError),
        (400, "content_filter", ContentFilterError),
        (400, "content_policy_violation", ContentFilterError),
        (401, "invalid_api_key", ModelAuthenticationError),
        (403, None, ModelAuthenticationError),
        (404, "model_not_found", ModelRequestError),
        (408, None, ModelTimeoutError),
        (409, None, ModelUnavailableError),
        (413, "rate_limit_exceeded", ModelRequestError),
        (422, None, ModelRequestError),
        (429, "rate_limit_exceeded", RateLimitError),
        (500, None, ModelUnavailableError),
        (503, None, ModelUnavailableError),
        (504, None, ModelTimeoutError),
    ],
)
async def test_each_status_is_an_error_of_its_own_kind(
    status: int, code: str | None, expected: type[ModelError], way: str
) -> None:
    error = await failure(Reply(status=status, error_code=code, error_message="No, thanks"), way)

    assert type(error) is expected
    assert str(error).startswith(f"model 'm-1': No, thanks (status {status})")
    assert type(error.__cause__).__module__.startswith("openai")
    assert error.retryable == expected.retryable


@pytest.mark.parametrize(
    "body",
    [
        {"object": "error", "message": "This model's maximum context length is 9", "code": 400},
        {"error": {"message": "the request exceeds the available context size", "code": 400}},
    ],
)
async def test_a_compatible_server_may_tell_only_in_words_that_the_context_is_full(
    body: dict[str, Any],
) -> None:
    error = await failure(Reply(status=400, raw_body=json.dumps(body)))
    assert type(error) is ContextTooLongError


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "-7"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e99"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({}, None),
    ],
)
async def test_a_rate_limit_carries_the_pause_that_is_asked_for(
    headers: dict[str, str], seconds: float | None
) -> None:
    error = await failure(Reply(status=429, headers=headers))
    assert isinstance(error, RateLimitError)
    assert error.retry_after == (None if seconds is None else timedelta(seconds=seconds))


async def test_a_pause_may_be_given_as_a_date() -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    error = await failure(Reply(status=429, headers={"retry-after": until}))
    assert isinstance(error, RateLimitError)
    assert error.retry_after is not None
    assert timedelta(minutes=55) < error.retry_after <= timedelta(hours=1)


async def test_an_empty_account_is_not_worth_a_retry() -> None:
    error = await failure(Reply(status=429, error_code="insufficient_quota"))
    assert isinstance(error, RateLimitError)
    assert not error.retryable
    assert RateLimitError.retryable


@pytest.mark.parametrize("shown", [KEY, "sk-proj-***********cdef"])
async def test_a_key_that_the_provider_repeats_is_not_shown(shown: str) -> None:
    error = await failure(Reply(status=401, error_message=f"Bad key: {shown}."), api_key=KEY)
    assert "sk-" not in str(error)
    assert str(error).startswith("model 'm-1': Bad key: [key]. (status 401)")
    assert "OPENAI_API_KEY" in str(error)


async def test_a_key_of_another_form_is_not_shown_either() -> None:
    error = await failure(Reply(status=400, error_message="Bearer qwerty"), api_key="qwerty")
    assert "qwerty" not in str(error)


@pytest.mark.parametrize("way", ["reply", "stream"])
async def test_a_server_that_is_not_there_is_unavailable(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    model = OpenAIChat("m-1", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
    with pytest.raises(ModelUnavailableError, match="the connection failed") as caught:
        await ask(model, way)
    assert caught.value.retryable


@pytest.mark.parametrize("words_first", [None, 1])
@pytest.mark.parametrize("way", ["reply", "stream"])
async def test_a_silent_server_is_a_timeout(way: str, words_first: int | None) -> None:
    hold = threading.Event()
    reply = Reply(
        text="one two", hold=hold, hold_after_words=words_first if way == "stream" else None
    )
    error = await failure(reply, way, timeout=timedelta(milliseconds=300))
    assert type(error) is ModelTimeoutError
    assert isinstance(error, TimeoutError)


@pytest.mark.parametrize("way", ["reply", "stream"])
async def test_a_filtered_reply_is_no_reply(way: str) -> None:
    error = await failure(Reply(text="How to", finish_reason="content_filter"), way)
    assert type(error) is ContentFilterError


@pytest.mark.parametrize(
    "reply",
    [
        Reply(raw_body="<html>Bad gateway</html>", headers={"content-type": "text/html"}),
        Reply(raw_body="<html>Bad gateway</html>"),
        Reply(raw_body="{"),
        Reply(raw_body="[]"),
        Reply(raw_body='{"choices": []}'),
        Reply(raw_body='{"choices": null}'),
        completion(None),
        completion({"content": ["parts"]}),
        completion({"content": None, "tool_calls": [{"id": "a", "type": "function"}]}),
        completion(
            {"tool_calls": [{"type": "function", "function": {"name": "", "arguments": ""}}]}
        ),
    ],
)
async def test_what_is_no_completion_is_a_bad_reply(reply: Reply) -> None:
    error = await failure(reply)
    assert type(error) is BadReplyError
    assert str(error).startswith("model 'm-1': ")


async def test_an_error_in_the_body_of_a_good_status_is_told() -> None:
    error = await failure(Reply(error_code="overloaded", error_message="Come back later"))
    assert type(error) is BadReplyError
    assert "Come back later" in str(error)


@pytest.mark.parametrize(
    "reply, expected",
    [
        (Reply(text="one two", cut_after_words=0), StreamCutError),
        (Reply(text="one two", cut_after_words=1), StreamCutError),
        (Reply(text="one two", cut_after_words=2), StreamCutError),
        (Reply(text="one two", cut_after_words=1, drop_connection=True), StreamCutError),
        (events({"content": "one"}, finish=None), StreamCutError),
        (Reply(raw_body="<html></html>", headers={"content-type": "text/html"}), StreamCutError),
        (Reply(raw_body="data: <html>\n\n"), BadReplyError),
        (Reply(raw_body='data: ["x"]\n\n'), BadReplyError),
        (events({"content": ["parts"]}), BadReplyError),
        (events({"tool_calls": [{"index": 0, "id": "a"}]}), BadReplyError),
    ],
)
async def test_a_stream_that_ends_before_its_end_is_an_error(
    reply: Reply, expected: type[ModelError]
) -> None:
    error = await failure(reply, "stream")
    assert type(error) is expected
    assert error.retryable


async def test_a_plain_reply_whose_connection_breaks_is_unavailable() -> None:
    error = await failure(Reply(text="one two", cut_after_words=1))
    assert type(error) is ModelUnavailableError


@pytest.mark.parametrize(
    "code, expected",
    [
        ("server_error", ModelUnavailableError),
        ("rate_limit_exceeded", RateLimitError),
        ("insufficient_quota", RateLimitError),
        ("context_length_exceeded", ContextTooLongError),
        ("content_filter", ContentFilterError),
        ("invalid_api_key", ModelAuthenticationError),
        ("401", ModelAuthenticationError),
        ("503", ModelUnavailableError),
        ("422", ModelRequestError),
    ],
)
async def test_an_error_in_the_midst_of_a_stream_is_mapped_by_its_code(
    code: str, expected: type[ModelError]
) -> None:
    told = {"error": {"message": "Sorry", "code": code}}
    body = events({"content": "one "}).raw_body or ""
    error = await failure(Reply(raw_body=f"{body}data: {json.dumps(told)}\n\n"), "stream")
    assert type(error) is expected
    assert str(error).startswith("model 'm-1': Sorry")


async def test_an_invalid_request_that_a_stream_tells_late_is_a_request_error() -> None:
    error = await failure(Reply(text="one two", error_code="odd"), "stream")
    assert type(error) is ModelRequestError


# Retries, cancellation, concurrency, loops


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
