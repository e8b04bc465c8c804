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
        clock = asyncio.get_running_loop().time
        give_up = asyncio.get_running_loop().call_later(_SETTLE_FOR_S, task.cancel)
        # Its own clean-up may hang too, so it is not waited for without end.
        leave_at = clock() + 2 * _SETTLE_FOR_S
        while not task.done() and clock() < leave_at:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task], timeout=leave_at - clock())
        give_up.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # looked at, or asyncio would complain that nobody did
        raise


async def settled_soon(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* returns, as settled does, but cancel it after five seconds anyway.

    Raises:
        TimeoutError: It took longer.
    """
    return await settled(asyncio.wait_for(work, _SETTLE_FOR_S))
