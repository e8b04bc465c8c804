"""Calling what users hand in: asynchronous functions are awaited, others kept off the loop."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


async def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what *function* returns.

    A plain function runs in a thread, with the caller's context variables: it can't block other
    runs, and can't be interrupted by a cancellation either.
    """
    if _is_async(function):
        return await function(*args, **kwargs)
    result = await asyncio.to_thread(_call_plain, function, args, kwargs)
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
