"""What goes wrong with a provider is an error of a kind of its own, and tells no key."""

from __future__ import annotations

import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from agno_sql.errors import (
    BadReplyError,
    ContentFilterError,
    ContextTooLongError,
    ModelAuthenticationError,
    ModelError,
    ModelRequestError,
    ModelTimeoutError,
    ModelUnavailableError,
    RateLimitError,
    StreamCutError,
)
from agno_sql.models.openai_chat import OpenAIChat
from agno_sql.testing.openai_server import Reply
from tests.models.openai_calls import KEY, ask, completion, events, failure


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
