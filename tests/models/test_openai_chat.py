"""OpenAIChat against a real HTTP server, through the real client: what goes out and comes back."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest

from agno_sql.errors import InvalidOptionError, ModelAuthenticationError
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.models.chat_model import ModelReply, ToolSpec
from agno_sql.models.openai_chat import OpenAIChat
from agno_sql.testing.openai_server import Reply, ScriptedOpenAI
from tests.models.openai_calls import HELLO, KEY, ask, chat, completion, events, pieces

WEATHER = ToolSpec("weather", "Tells the weather.", {"type": "object", "properties": {}})
ROME = ToolCall("call_1", "weather", '{"city":  "Rome", "days": 3}')
OSLO = ToolCall("call_2", "weather", '{"city": "Oslo"} ')


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
