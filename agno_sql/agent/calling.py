"""Calling what users hand in: asynchronous functions are awaited, others kept off the loop."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_THREADS: Final = 128
# Threads of our own: the loop's few also look up host names, for which nobody should have to wait
# until a tool is done. One pool a loop, as a pool does not survive a fork; it goes with its loop.
_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()


async def call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Return what *function* returns.

    A plain function runs in a thread, with the caller's context variables: it can't block other
    runs, and can't be interrupted by a cancellation either. At most 128 run at once.
    """
    if _is_async(function):
        return await function(*args, **kwargs)
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        _pools[loop] = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="agno-sql-call")
    work = partial(contextvars.copy_context().run, _call_plain, function, args, kwargs)
    result = await loop.run_in_executor(_pools[loop], work)
    return await result if inspect.isawaitable(result) else result


def _call_plain(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        # No future can hold a StopIteration: its waiter would never wake up.
        raise RuntimeError("StopIteration") from error


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  (an instance with an async __call__)
    )
