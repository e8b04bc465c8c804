"""Answers for clients that may go away before they come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.requests import Request

_Answer = TypeVar("_Answer")


async def while_connected(answer: Coroutine[Any, Any, _Answer], request: Request) -> _Answer | None:
    """Return the *answer*; ``None`` as soon as the client is gone: a request must not stay.

    The body of *request* has been read.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    waiting, left = asyncio.ensure_future(answer), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([waiting, left], return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()
        left.cancel()
