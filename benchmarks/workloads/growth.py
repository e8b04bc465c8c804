"""A database that has grown: turns of its users, and a clean-up beside a user who writes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.stage import percentile
from benchmarks.workloads.turns import one_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agno_sql import SQLMemory
    from benchmarks.driver import Driver
    from benchmarks.stage import Stage

# Of each hundred users, one was last active today, one a day ago, one two days ago and so on.
AGES: Final = 100
_PAGE: Final = 100
_CLEAN_FOR_S: Final = 30.0
_SPREAD: Final = 7919  # a prime: neighbours in the list are far apart in the table


async def growth(driver: Driver, options: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Let *users* of those that are stored make *turns* turns, others *rounds* times over.

    Then list and delete who was away: ``list_ms`` is the time of a page of inactive users, where
    the driver has a ``memory`` to list them; ``alone_ms`` a turn of a user who is alone and, of
    that user's while others are deleted, ``pause_ms`` is the longest one and ``beside_p99_ms`` what
    99 of 100 do not exceed. The clean-up is cancelled after 30 seconds. ``quiet_ms`` is the longest
    of as long a time with nothing beside it.
    """
    turns, rounds = options["turns"], options["rounds"]
    hundreds = options["rows_users"] // AGES

    async def user(n: int, round_: int) -> None:
        # Where there are few users, each comes again after some rounds.
        times, place = divmod(round_, hundreds)
        name = f"user-{n + AGES * ((n * _SPREAD + place) % hundreds)}"
        before = options["rows_turns"] + times * turns
        for number in range(before, before + turns):
            async with stage.timing():
                await one_turn(driver, name, number)

    early = f"early-{stage.repetition}"
    await asyncio.gather(*(one_turn(driver, f"{early}-{n}", 0) for n in range(options["users"])))
    async with stage.measuring():
        for round_ in range(stage.repetition * rounds, (stage.repetition + 1) * rounds):
            await asyncio.gather(*(user(n, round_) for n in range(options["users"])))
    memory: SQLMemory | None = getattr(driver, "memory", None)
    store: Any = memory or driver
    clean = partial(store.delete_inactive, timedelta(days=90 - 10 * stage.repetition))
    return {
        **({"list_ms": await _listing(memory)} if memory else {}),
        **await _cleaning(driver, f"writer-{stage.repetition}", clean),
    }


async def _listing(memory: SQLMemory) -> float:
    taken, after = [], None
    for _ in range(20):
        began = time.perf_counter()
        page = await memory.inactive_users(timedelta(days=30), limit=_PAGE, after=after)
        taken.append(time.perf_counter() - began)
        after = page[-1] if len(page) == _PAGE else None
    return median(taken) * 1000


async def _cleaning(
    driver: Driver, writer: str, clean_up: Callable[..., Coroutine[Any, Any, int]]
) -> dict[str, Any]:
    alone = [await _timed_turn(driver, writer, number) for number in range(50)]
    deleted: list[int] = []
    clean = asyncio.create_task(clean_up(progress=deleted.append))
    began = time.perf_counter()
    beside: list[float] = []
    while not clean.done():
        beside.append(await _timed_turn(driver, writer, 50 + len(beside)))
        if time.perf_counter() - began > _CLEAN_FOR_S:
            clean.cancel()
    with suppress(asyncio.CancelledError):
        await clean
    took = time.perf_counter() - began
    quiet: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < took:
        quiet.append(await _timed_turn(driver, writer, 50 + len(beside) + len(quiet)))
    return {
        "alone_ms": median(alone) * 1000,
        "beside_p99_ms": percentile(sorted(beside), 99) * 1000,
        "pause_ms": max(beside, default=0.0) * 1000,
        "deleted_users": sum(deleted),
        "deleting_s": took,
        "quiet_ms": max(quiet, default=0.0) * 1000,
    }


async def _timed_turn(driver: Driver, writer: str, number: int) -> float:
    began = time.perf_counter()
    await one_turn(driver, writer, number)
    return time.perf_counter() - began
