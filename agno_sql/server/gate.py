"""What each request passes before it reaches an endpoint, and each response on its way out."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from agno_sql.server.problems import problem_response
from agno_sql.server.refusals import (
    BodyTooLargeError,
    MediaTypeError,
    OverloadedError,
    RefusalError,
    SlowBodyError,
    UnknownHostError,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from agno_sql.server.limits import Limits

# A name, an IPv4 address, or an IPv6 one in brackets; without the port.
_HOST: Final = re.compile(r"([^:\[\]]+|\[[0-9a-f:.]+\])(?::[0-9]+)?")
_JSON: Final = ("application/json", "application/a2a+json")
_FORM: Final = ("application/x-www-form-urlencoded",)
_HEALTH: Final = ("/healthz", "/readyz")
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Gate:
    """An ASGI application in front of another, which gets only requests within the limits.

    Their bodies have arrived whole by then. An error that nobody has handled becomes a problem
    without any detail. With *hosts*, requests for other hosts are refused: a page that a browser
    was led to under a name of its own can't reach a server without authentication.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, hosts: Collection[str] | None = None
    ) -> None:
        self._app = app
        self._limits = limits
        self._hosts = hosts
        self._served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._limits.send_timeout.total_seconds())
        counts = not _asks_for_health(scope)
        self._served += counts
        try:
            await self._app(scope, await self._checked(scope, receive), answer.send)
        except ClientDisconnect:
            return  # what has not arrived whole is not done
        except RefusalError as error:
            # What is left of a body that was refused must not be taken for the next request.
            answer.closes = True
            await problem_response(error)(scope, receive, answer.send)
        except Exception as error:
            if answer.is_given_up:
                return
            if answer.has_begun:
                raise
            await problem_response(error)(scope, receive, answer.send)
        finally:
            self._served -= counts

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        if self._hosts is not None and _host(headers) not in self._hosts:
            raise UnknownHostError("this server has no authentication: it is for local use only")
        if self._served > self._limits.concurrency:
            raise OverloadedError("too many requests are at work; try again later")
        return await self._with_body(headers, receive, _media_types(scope))

    async def _with_body(
        self, headers: Headers, receive: Receive, expected: tuple[str, ...]
    ) -> Receive:
        length = headers.get("content-length", "0")
        if length == "0" and "transfer-encoding" not in headers:
            return receive
        most = self._limits.body_bytes
        if not length.isdecimal() or len(length) > len(str(most)) or int(length) > most:
            raise BodyTooLargeError(f"the body must have at most {most} bytes")
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in expected:
            raise MediaTypeError(f"the body must be {expected[0]}")
        try:
            async with asyncio.timeout(self._limits.body_timeout.total_seconds()):
                body = await _read(receive, most)
        except TimeoutError:
            raise SlowBodyError("the body did not arrive in time") from None
        return _then(body, receive)


class _Answer:
    """A response on its way; ``closes`` says that its connection is not used again."""

    def __init__(self, send: Send, within_s: float) -> None:
        self._send = send
        self._within_s = within_s
        self.has_begun = False
        self.is_given_up = False
        self.closes = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self.closes:
                headers["connection"] = "close"
        try:
            async with asyncio.timeout(self._within_s):
                await self._send(message)
        except TimeoutError:
            # A client that does not read would keep its place among the requests for ever.
            self.is_given_up = True
            raise


def _media_types(scope: Scope) -> tuple[str, ...]:
    """Return what a body may be: JSON, which no page of another origin can send unasked.

    The operator's pages post forms, and tell by other means where a form comes from.
    """
    is_of_pages = _path(scope).startswith("/admin/")
    return _FORM if is_of_pages else _JSON


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _asks_for_health(scope: Scope) -> bool:
    """Tell whether the request is one of those that are answered however much is at work."""
    headers = Headers(scope=scope)
    has_body = "content-length" in headers or "transfer-encoding" in headers
    return scope["method"] == "GET" and _path(scope) in _HEALTH and not has_body


def _host(headers: Headers) -> str:
    found = _HOST.fullmatch(headers.get("host", "").lower())
    return found[1] if found else ""


async def _read(receive: Receive, most: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body.extend(message.get("body", b""))
        if len(body) > most:
            raise BodyTooLargeError(f"the body must have at most {most} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def _then(body: bytes, receive: Receive) -> Receive:
    """Return a receive that hands out *body*, and then what comes after it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return first.pop() if first else await receive()

    return next_message
