"""Work that a cancellation must not tear apart."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")

_SETTLE_FOR_S: Final = 5.0


async def settled_soon(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* returns, as settled does, but stop waiting after five seconds anyway.

    Raises:
        TimeoutError: It took longer; it is cancelled then.
    """
    async with asyncio.timeout(_SETTLE_FOR_S):
        return await settled(work)


async def settled(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* returns; a cancellation is raised when it has ended, one way or another.

    It is let go on for five seconds at most, then it is cancelled too.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + _SETTLE_FOR_S
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task], timeout=max(0.0, give_up_at - clock()))
            if clock() >= give_up_at:
                task.cancel()
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would complain that nobody did
        raise
