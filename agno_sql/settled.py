"""Work that a cancellation must not tear apart."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")

_SETTLE_FOR_S: Final = 5.0


async def settled(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* returns; a cancellation is raised when it has ended, one way or another.

    It is let go on for five seconds, then it is cancelled too, and left after five more.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await wait_for_end(task)
        if not task.done():
            task.cancel()
            await wait_for_end(task)  # its own clean-up may hang too
        if task.done() and not task.cancelled():
            task.exception()  # looked at, or asyncio would complain that nobody did
        raise


async def settled_soon(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* returns, as settled does, but cancel it after five seconds anyway.

    Raises:
        TimeoutError: It took longer.
    """
    return await settled(asyncio.wait_for(work, _SETTLE_FOR_S))


async def wait_for_end(work: asyncio.Future[Any]) -> None:
    """Wait until *work* is done, for five seconds at most, whoever cancels meanwhile."""
    clock = asyncio.get_running_loop().time
    leave_at = clock() + _SETTLE_FOR_S
    while not work.done() and (left_s := leave_at - clock()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.wait([work], timeout=left_s)
