"""A scripted stand-in for the OpenAI API on a real local port: no key, no cost, no surprises."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import uvicorn
from starlette.requests import ClientDisconnect, Request

from agno_sql.testing.wire_rules import request_violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from starlette.types import Receive, Scope, Send

    from agno_sql.message import ToolCall, Usage

_WORD: Final = re.compile(r"\S+\s*|\s+")
_TARGET: Final = "POST /v1/chat/completions"
_POLL_S: Final = 0.005
_ARGUMENT_PIECE_CHARACTERS: Final = 7
# The script of a test is wrong: a client that retries would only hide where.
_NO_RETRY: Final = {"x-should-retry": "false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One scripted answer. The same record serves plain and streamed requests.

    Attributes:
        text: Streamed word by word.
        tool_calls: Streamed after the text, the arguments in pieces of seven characters.
        refusal: What a model that refuses says instead of text.
        usage: ``None`` sends none, as some compatible servers do.
        finish_reason: By default ``tool_calls`` with tool calls, ``stop`` otherwise.
        status: 400 and above answer with an OpenAI-shaped error instead.
        headers: Sent with the answer, for example ``retry-after-ms``.
        error_code: The ``code`` of the error. With status 200 the error comes after the text,
            in the midst of the stream.
        error_message: The ``message`` of the error.
        raw_body: Sent as it is instead of all the above, under *status* and *headers*.
        delay_s: Seconds to wait before the answer.
        hold: The answer waits until a test sets this event.
        hold_after_words: Send so many words of a stream before the hold.
        cut_after_words: End the stream after so many words, without a finish_reason. An answer
            that is not streamed is always cut by dropping the connection.
        drop_connection: Cut a stream by dropping its connection, not by ending it in order.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error_code: str | None = None
    error_message: str = "a scripted error"
    raw_body: str | None = None
    delay_s: float = 0.0
    hold: threading.Event | None = None
    hold_after_words: int | None = None
    cut_after_words: int | None = None
    drop_connection: bool = False


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """What a client sent; header names are in lower case."""

    body: dict[str, Any]
    headers: Mapping[str, str]


class ScriptedOpenAI:
    """Serves POST /v1/chat/completions on 127.0.0.1 while its ``with`` block runs.

    Requests are held to OpenAI's rules (see ``wire_violation``) and answered with a 400 where
    they break one; a broken one uses up no reply. When the block ends, answers that are still
    held are dropped, and no thread or socket remains.

    Args:
        replies: Used in the order in which requests arrive; a request beyond the last is
            answered with a 500 that says so and forbids retries. Or a function that decides from
            the request's body: it's called by one request at a time, in the server's thread,
            and must not block.
    """

    def __init__(self, replies: Iterable[Reply] | Callable[[dict[str, Any]], Reply]) -> None:
        self._choose = replies if callable(replies) else _in_order(replies)
        self._changed = threading.Condition()
        self._requests: list[RecordedRequest] = []
        self._disconnects = 0
        self._holds: dict[threading.Event, asyncio.Task[None]] = {}
        self._numbers = itertools.count(1)

    @property
    def base_url(self) -> str:
        """Where clients find the server; known while the ``with`` block runs."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests so far, in order of arrival, those answered by an error included."""
        with self._changed:
            return list(self._requests)

    @property
    def disconnects(self) -> int:
        """How many clients went away before their answer was complete."""
        with self._changed:
            return self._disconnects

    def wait_for_requests(self, count: int, *, timeout_s: float = 10.0) -> list[RecordedRequest]:
        """Block until *count* requests have arrived and return them all.

        An async test waits in ``asyncio.to_thread``, here and below.

        Raises:
            TimeoutError: Fewer came.
        """
        self._wait(lambda: len(self._requests) >= count, f"{count} requests", timeout_s)
        return self.requests

    def wait_for_disconnects(self, count: int = 1, *, timeout_s: float = 10.0) -> None:
        """Block until *count* clients went away before their answer was complete.

        Raises:
            TimeoutError: Fewer did.
        """
        self._wait(lambda: self._disconnects >= count, f"{count} disconnects", timeout_s)

    def __enter__(self) -> Self:
        listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self._port: int = listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            lifespan="off",
            ws="none",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=5,
            # A client's idle connection must not be closed while it begins its next request.
            timeout_keep_alive=600,
        )
        self._server = _PromptServer(config, self._stopping)
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self, listening: socket.socket) -> None:
        with listening, asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[listening]))

    def _wait(self, happened: Callable[[], bool], what: str, timeout_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(happened, timeout_s):
                seen = f"{len(self._requests)} requests and {self._disconnects} disconnects"
                raise TimeoutError(f"waited {timeout_s} s for {what}, saw {seen}")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raw = await Request(scope, receive).body()
        except ClientDisconnect:
            self._count_disconnect()
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        body, reply = self._reply_to(f"{scope['method']} {scope['path']}", raw, headers)
        answer = _Answer(next(self._numbers), body, reply, send, self._released)
        work = asyncio.create_task(answer.send_all())
        gone = asyncio.create_task(_client_gone(receive))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({work, gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not work.done():
            self._count_disconnect()
        unfinished = [task for task in (work, gone, stopping) if task.cancel()]
        await asyncio.gather(*unfinished, return_exceptions=True)
        if not work.cancelled():
            work.result()

    def _reply_to(
        self, target: str, raw: bytes, headers: dict[str, str]
    ) -> tuple[dict[str, Any], Reply]:
        if target != _TARGET:
            return {}, Reply(status=404, error_message=f"{target}: only {_TARGET} is served")
        try:
            body = json.loads(raw)
        except ValueError:
            return {}, _refused("the body is not valid JSON")
        with self._changed:
            self._requests.append(RecordedRequest(body, headers))
            self._changed.notify_all()
        if broken := request_violation(body):
            return body, _refused(broken)
        try:
            return body, self._choose(body)
        except Exception as error:  # noqa: BLE001 - a test's own function: show whatever it raised
            told = f"ScriptedOpenAI has no reply: {type(error).__name__}: {error}"
            return body, Reply(status=500, headers=_NO_RETRY, error_message=told)

    def _count_disconnect(self) -> None:
        with self._changed:
            self._disconnects += 1
            self._changed.notify_all()

    async def _released(self, hold: threading.Event) -> None:
        # One poll for each event, however many answers it holds; a waiting thread for each
        # answer would exhaust a pool.
        if hold not in self._holds:
            self._holds[hold] = asyncio.create_task(_poll(hold))
        await asyncio.shield(self._holds[hold])


class _PromptServer(uvicorn.Server):
    """Ends when told so, where uvicorn itself looks ten times a second."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stopping.wait()


@dataclass(frozen=True, slots=True)
class _Answer:
    """One reply on its way to one client."""

    number: int
    request: dict[str, Any]
    reply: Reply
    send: Send
    released: Callable[[threading.Event], Any]

    async def send_all(self) -> None:
        reply = self.reply
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        if reply.hold and reply.hold_after_words is None:
            await self.released(reply.hold)
        if reply.raw_body is not None:
            is_events = reply.raw_body.startswith("data:")
            await self._whole(
                reply.raw_body, "text/event-stream" if is_events else "application/json"
            )
        elif reply.status >= 400:
            await self._whole(json.dumps(self._error()))
        elif self.request.get("stream"):
            await self._stream()
        else:
            await self._whole(json.dumps(self._error() if reply.error_code else self._completion()))

    async def _whole(self, text: str, content_type: str = "application/json") -> None:
        body = text.encode()
        await self._start(content_type, {"content-length": str(len(body))})
        if self.reply.cut_after_words is not None:
            # Announced but not sent: the server drops such a connection when this returns.
            await self._body(body[: len(body) // 2], more=True)
        else:
            await self._body(body, more=False)

    async def _stream(self) -> None:
        reply = self.reply
        await self._start("text/event-stream", {})
        await self._event(self._chunk({"role": "assistant", "content": ""}))
        words: list[str] = _WORD.findall(reply.text)
        for count, word in enumerate([*words, None]):
            if reply.hold and reply.hold_after_words == count:
                await self.released(reply.hold)
            if reply.cut_after_words == count:
                if not reply.drop_connection:
                    await self._body(b"", more=False)
                return
            if word is not None:
                await self._event(self._chunk({"content": word}))
        for event in [self._error()] if reply.error_code else self._after_text():
            await self._event(event)
        await self._body(b"data: [DONE]\n\n", more=False)

    def _after_text(self) -> Iterator[dict[str, Any]]:
        if self.reply.refusal is not None:
            yield self._chunk({"refusal": self.reply.refusal})
        for index, call in enumerate(self.reply.tool_calls):
            first = {"index": index, **_wire_call(call, arguments="")}
            yield self._chunk({"tool_calls": [first]})
            for start in range(0, len(call.arguments), _ARGUMENT_PIECE_CHARACTERS):
                piece = call.arguments[start : start + _ARGUMENT_PIECE_CHARACTERS]
                delta = {"index": index, "function": {"arguments": piece}}
                yield self._chunk({"tool_calls": [delta]})
        yield self._chunk({}, finish_reason=self._finish_reason())
        if (self.request.get("stream_options") or {}).get("include_usage") and self.reply.usage:
            yield {**self._chunk({}), "choices": [], **self._usage()}

    def _completion(self) -> dict[str, Any]:
        reply = self.reply
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
        message["refusal"] = reply.refusal
        if reply.tool_calls:
            message["tool_calls"] = [_wire_call(call, call.arguments) for call in reply.tool_calls]
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason()}
        return {**self._head("chat.completion"), "choices": [choice], **self._usage()}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        number, model = self.number, self.request["model"]
        return {"id": f"chatcmpl-{number}", "object": kind, "created": number, "model": model}

    def _usage(self) -> dict[str, Any]:
        if (usage := self.reply.usage) is None:
            return {}
        counts = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
        return {"usage": {**counts, "total_tokens": usage.total_tokens}}

    def _finish_reason(self) -> str:
        return self.reply.finish_reason or ("tool_calls" if self.reply.tool_calls else "stop")

    def _error(self) -> dict[str, Any]:
        kind = "server_error" if self.reply.status >= 500 else "invalid_request_error"
        told = {"message": self.reply.error_message, "type": kind, "param": None}
        return {"error": {**told, "code": self.reply.error_code}}

    async def _start(self, content_type: str, more: Mapping[str, str]) -> None:
        headers = {"content-type": content_type, **more, **self.reply.headers}
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        status = self.reply.status
        await self.send({"type": "http.response.start", "status": status, "headers": lines})

    async def _event(self, event: dict[str, Any]) -> None:
        await self._body(f"data: {json.dumps(event)}\n\n".encode(), more=True)

    async def _body(self, body: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})


def _in_order(replies: Iterable[Reply]) -> Callable[[dict[str, Any]], Reply]:
    script = list(replies)
    rest = iter(script)

    def choose(_body: dict[str, Any]) -> Reply:
        reply = next(rest, None)
        if reply is None:
            raise LookupError(f"all {len(script)} scripted replies are used up")
        return reply

    return choose


def _refused(broken: str) -> Reply:
    return Reply(status=400, error_code="invalid_value", error_message=broken)


def _wire_call(call: ToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _poll(hold: threading.Event) -> None:
    while not hold.is_set():  # noqa: ASYNC110 - set from another thread, which knows no loop
        await asyncio.sleep(_POLL_S)
