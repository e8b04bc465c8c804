"""ScriptedOpenAI as its users see it: through bare HTTP, with no client of ours in between."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

import agno_sql.testing
from agno_sql.message import ToolCall, Usage
from agno_sql.testing import Reply, ScriptedOpenAI, wire_violation

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{"}}
ASKS = {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "b"}]}
A = {"role": "tool", "tool_call_id": "a", "content": "1"}
B = {"role": "tool", "tool_call_id": "b", "content": "2"}
PATH = "/v1/chat/completions"


def connect(server: ScriptedOpenAI) -> http.client.HTTPConnection:
    host = server.base_url.removeprefix("http://").removesuffix("/v1")
    return http.client.HTTPConnection(host, timeout=10)


def post(server: ScriptedOpenAI, path: str = PATH, **body: Any) -> tuple[int, str]:
    with closing(connect(server)) as connection:
        connection.request("POST", path, json.dumps({"model": "m", "messages": [USER]} | body))
        response = connection.getresponse()
        return response.status, response.read().decode()


def streamed(server: ScriptedOpenAI, **body: Any) -> list[Any]:
    status, text = post(server, stream=True, **body)
    assert status == 200
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def deltas(chunks: list[Any]) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks if chunk != "[DONE]" for choice in chunk["choices"]]


# Replies


def test_a_plain_answer_has_the_shape_of_a_chat_completion() -> None:
    call = ToolCall("call_1", "look", '{"x":  1}')
    with ScriptedOpenAI([Reply(text="Hi", tool_calls=(call,), usage=Usage(5, 2))]) as server:
        status, text = post(server)

    function = {"name": "look", "arguments": '{"x":  1}'}
    message = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }
    assert status == 200
    assert json.loads(text) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def test_text_is_streamed_word_by_word_and_loses_nothing() -> None:
    text = "  one two\n\nthree "
    with ScriptedOpenAI([Reply(text=text)]) as server:
        *chunks, done = streamed(server)

    words = [delta["content"] for delta in deltas(chunks) if delta.get("content")]
    assert words == ["  ", "one ", "two\n\n", "three "]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"


def test_arguments_are_streamed_in_pieces_under_the_index_of_their_call() -> None:
    calls = (ToolCall("a", "look", '{"city": "Rome"}'), ToolCall("b", "go", "{}"))
    with ScriptedOpenAI([Reply(tool_calls=calls)]) as server:
        parts = [part for delta in deltas(streamed(server)) for part in delta.get("tool_calls", [])]

    assert [(part["index"], part["function"]["arguments"]) for part in parts] == [
        (0, ""), (0, '{"city"'), (0, ': "Rome'), (0, '"}'), (1, ""), (1, "{}"),
    ]  # fmt: skip
    assert [part.get("id") for part in parts] == ["a", None, None, None, "b", None]


@pytest.mark.parametrize("asked", [True, False])
def test_usage_is_streamed_last_and_only_if_asked_for(asked: bool) -> None:
    with ScriptedOpenAI([Reply(text="Hi", usage=Usage(5, 2))]) as server:
        chunks = streamed(server, stream_options={"include_usage": asked})

    counted = [chunk for chunk in chunks if "usage" in chunk]
    assert counted == ([chunks[-2]] if asked else [])
    assert all(chunk["choices"] == [] for chunk in counted)


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_has_its_status_headers_and_the_shape_of_openai(stream: bool) -> None:
    reply = Reply(status=429, headers={"retry-after": "3"}, error_code="slow", error_message="Ha")
    with ScriptedOpenAI([reply]) as server, closing(connect(server)) as connection:
        body = {"model": "m", "messages": [USER], "stream": stream}
        connection.request("POST", PATH, json.dumps(body))
        response = connection.getresponse()
        error = json.loads(response.read())["error"]

    assert (response.status, response.headers["retry-after"]) == (429, "3")
    assert (error["code"], error["message"]) == ("slow", "Ha")


def test_a_raw_body_is_sent_as_it_is() -> None:
    with ScriptedOpenAI([Reply(raw_body="<html>", status=502)]) as server:
        assert post(server) == (502, "<html>")


def test_a_cut_stream_ends_without_a_finish_reason() -> None:
    with ScriptedOpenAI([Reply(text="one two three", cut_after_words=2)]) as server:
        chunks = streamed(server)
    assert [delta.get("content") for delta in deltas(chunks)] == ["", "one ", "two "]
    assert not any(chunk["choices"][0]["finish_reason"] for chunk in chunks)


@pytest.mark.parametrize("stream", [True, False])
def test_a_dropped_connection_breaks_the_answer(stream: bool) -> None:
    reply = Reply(text="one two", cut_after_words=1, drop_connection=True)
    with ScriptedOpenAI([reply]) as server, pytest.raises(http.client.IncompleteRead):
        post(server, stream=stream)


def test_replies_are_used_in_order_and_a_request_too_many_says_so() -> None:
    with ScriptedOpenAI(Reply(text=text) for text in ("one", "two")) as server:
        assert ["one" in post(server)[1], "two" in post(server)[1]] == [True, True]
        status, text = post(server)
    assert status == 500
    assert "all 2 scripted replies are used up" in text


def test_a_function_decides_from_the_conversation_and_its_failure_is_told() -> None:
    def decide(body: dict[str, Any]) -> Reply:
        return Reply(text={"Hello": "Hi"}[body["messages"][-1]["content"]])

    with ScriptedOpenAI(decide) as server:
        assert '"content": "Hi"' in post(server)[1]
        status, text = post(server, messages=[{"role": "user", "content": "Bye"}])
    assert status == 500
    assert "KeyError: 'Bye'" in text


def test_a_held_answer_waits_for_its_test() -> None:
    hold = threading.Event()
    with (
        ScriptedOpenAI(lambda _: Reply(text="Hi", hold=hold)) as server,
        ThreadPoolExecutor() as pool,
    ):
        answers = [pool.submit(post, server) for _ in range(3)]
        server.wait_for_requests(3)
        assert not any(answer.done() for answer in answers)
        hold.set()
        assert all('"content": "Hi"' in answer.result()[1] for answer in answers)


def test_a_stream_may_be_held_between_two_words() -> None:
    reply = Reply(text="one two", hold=threading.Event(), hold_after_words=1)
    with ScriptedOpenAI([reply]) as server, closing(connect(server)) as connection:
        connection.request(
            "POST", PATH, json.dumps({"model": "m", "messages": [USER], "stream": True})
        )
        response = connection.getresponse()
        while b"one " not in (line := response.readline()):
            assert b"two" not in line
        assert server.disconnects == 0
        response.close()
        connection.close()
        server.wait_for_disconnects(1)
        assert server.disconnects == 1


def test_a_complete_answer_is_no_disconnect() -> None:
    with ScriptedOpenAI([Reply(text="Hi"), Reply(text="Ho")]) as server:
        post(server)
        streamed(server)
    assert server.disconnects == 0


def test_waiting_for_what_does_not_come_ends_with_what_was_seen() -> None:
    with ScriptedOpenAI([Reply()]) as server:
        post(server)
        with pytest.raises(TimeoutError, match=r"for 2 requests, saw 1 requests and 0 disconnects"):
            server.wait_for_requests(2, timeout_s=0.01)


# The server itself


def test_requests_are_recorded_with_their_headers() -> None:
    with ScriptedOpenAI([Reply()]) as server, closing(connect(server)) as connection:
        body = {"model": "m", "messages": [USER], "seed": 3}
        connection.request("POST", PATH, json.dumps(body), {"Authorization": "Bearer k"})
        connection.getresponse().read()

    [request] = server.requests
    assert request.body == body
    assert request.headers["authorization"] == "Bearer k"


def test_when_its_block_ends_held_answers_threads_and_the_port_are_gone() -> None:
    before = threading.active_count()
    with ScriptedOpenAI([Reply(hold=threading.Event())]) as server:
        connection = connect(server)
        connection.request("POST", PATH, json.dumps({"model": "m", "messages": [USER]}))
        server.wait_for_requests(1)
        assert threading.active_count() == before + 1
    connection.close()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        post(server)


def test_a_server_may_be_closed_before_it_has_begun() -> None:
    for _ in range(20):
        with ScriptedOpenAI([]):
            pass


async def test_a_thousand_users_at_once_are_each_answered_their_own() -> None:
    def echo(body: dict[str, Any]) -> Reply:
        return Reply(text=body["messages"][-1]["content"])

    async def ask(host: str, port: int, text: str) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}"
        )
        writer.write(f"{head}\r\n\r\n{body}".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    with ScriptedOpenAI(echo) as server:
        host, _, port = server.base_url.split("/")[2].partition(":")
        answers = await asyncio.gather(*(ask(host, int(port), f"u{n}.") for n in range(1000)))
    assert all(f'"u{n}."'.encode() in answer for n, answer in enumerate(answers))
    assert len(server.requests) == 1000


# The rules


@pytest.mark.parametrize(
    "body, told",
    [
        ({"messages": []}, "non-empty"),
        ({"messages": [USER, ASKS, A]}, "['b']"),
        ({"model": None}, "names a model"),
        ({"tools": []}, "tools must be a non-empty array"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a" * 65}}]}, "tools[0]"),
        ({"tools": ["look"]}, "tools[0]"),
        ({"parallel_tool_calls": True}, "only allowed with tools"),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused_and_uses_up_no_reply(
    body: dict[str, Any], told: str
) -> None:
    with ScriptedOpenAI([Reply(text="Hi")]) as server:
        status, text = post(server, **body)
        assert status == 400
        assert told in json.loads(text)["error"]["message"]
        tool = {"type": "function", "function": {"name": "look-up_2", "parameters": {}}}
        assert post(server, tools=[tool])[0] == 200


def test_only_chat_completions_are_served_and_only_json_is_read() -> None:
    with ScriptedOpenAI([]) as server:
        assert post(server, "/v1/embeddings")[0] == 404
        with closing(connect(server)) as connection:
            connection.request("POST", PATH, "{")
            response = connection.getresponse()
            assert (response.status, b"not valid JSON" in response.read()) == (400, True)


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [{"role": "system", "content": ""}, {"role": "developer", "content": ""}, USER],
        [USER, {"role": "assistant", "content": ""}, {**USER, "name": "Zo\u00eb"}],
        [USER, ASKS, B, A, {"role": "assistant", "content": "Done"}],
        [USER, ASKS, A, B, ASKS, A, B],
        [USER, {**ASKS, "content": "Let me see"}, A, B],
    ],
)
def test_a_sound_conversation_breaks_no_rule(messages: list[dict[str, Any]]) -> None:
    assert wire_violation(messages) is None


@pytest.mark.parametrize(
    "messages, told",
    [
        ([], "non-empty"),
        ("Hello", "non-empty"),
        (["Hello"], "messages[0]: must be an object"),
        ([{"content": ""}], "role None"),
        ([{"role": "bot", "content": ""}], "role 'bot'"),
        ([{"role": "user"}], "content may be null only"),
        ([{"role": "assistant", "content": None}], "content may be null only"),
        ([{"role": "user", "content": 3}], "content must be a string"),
        ([{**USER, "name": "Ann Lee"}], "name 'Ann Lee'"),
        ([{**USER, "tool_calls": [CALL]}], "only an assistant"),
        ([USER, {**ASKS, "tool_calls": []}], "messages[1]: tool_calls must be a non-empty"),
        ([USER, {**ASKS, "tool_calls": [CALL, CALL]}, A], "repeat an id"),
        ([{**ASKS, "tool_calls": [{**CALL, "id": ""}]}], "tool_calls[0]: id"),
        ([{**ASKS, "tool_calls": [{**CALL, "type": None}]}], "type 'function'"),
        ([{**ASKS, "tool_calls": [{**CALL, "function": {"name": "a.b"}}]}], "function.name"),
        ([{**ASKS, "tool_calls": [{**CALL, "function": {"name": "a"}}]}], "function.arguments"),
        ([USER, A], "messages[1]: tool_call_id 'a' answers no open call"),
        ([ASKS, A, A, B], "messages[2]: tool_call_id 'a'"),
        ([ASKS, A, USER, B], "messages[2]: these tool calls lack their result: ['b']"),
        ([ASKS, ASKS], "messages[1]: these tool calls lack their result: ['a', 'b']"),
        ([ASKS, A, B, USER, A], "messages[4]: tool_call_id 'a'"),
        ([USER, ASKS, B], "the conversation ends while tool calls lack their result: ['a']"),
    ],
)
def test_a_broken_conversation_is_told_with_its_place(messages: Any, told: str) -> None:
    assert told in (wire_violation(messages) or "")


# The package


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = agno_sql.testing.Nothing


def run_without(missing: str, code: str) -> subprocess.CompletedProcess[str]:
    blocked = f"import sys; sys.modules[{missing!r}] = None\n{code}"
    return subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_the_error_names_the_command(missing: str) -> None:
    ended = run_without(missing, "from agno_sql.testing import ScriptedOpenAI")
    assert "MissingExtraError: agno_sql.testing.ScriptedOpenAI needs an extra" in ended.stderr
    assert "pip install 'agno-sql[testing]'" in ended.stderr


def test_the_rules_need_no_web_server() -> None:
    ended = run_without("uvicorn", "from agno_sql.testing import wire_violation")
    assert (ended.returncode, ended.stderr) == (0, "")
