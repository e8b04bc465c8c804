"""Ctrl-C that stops what runs on an event loop, and not the program."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")


def run_until_stopped(runner: asyncio.Runner, work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* returns; Ctrl-C cancels it, and KeyboardInterrupt is raised."""
    # The Runner's own handler does not wake a loop that is about to wait when the signal comes,
    # or whose signal goes to another thread: Ctrl-C would do nothing until the next event. A
    # handler of the loop wakes it.
    try:
        return runner.run(_stoppable(work))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _stoppable(work: Coroutine[Any, Any, _T]) -> _T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101  (it runs in one)
    try:
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    except NotImplementedError:  # Windows has only the Runner's way
        return await work
    try:
        return await work
    finally:
        loop.remove_signal_handler(signal.SIGINT)
