"""A message of several megabytes, and what others notice of it."""

from __future__ import annotations

import asyncio
import base64
import time
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.conversation import Line
from benchmarks.workloads.turns import one_turn

if TYPE_CHECKING:
    from benchmarks.driver import Driver
    from benchmarks.stage import Stage

_USUAL_S = 0.5


async def huge(driver: Driver, options: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Let *users* make turns while another one stores a message of *megabytes*, *times* times.

    ``huge_ms`` is the time to store it when nobody else is there, ``beside_ms`` the longest turn
    of others that was under way meanwhile, ``usual_ms`` their median when nobody stores it.
    """
    text = base64.b64encode(Random(5).randbytes(options["megabytes"] * 750_000)).decode()
    alone = [await _store(driver, f"alone-{n}", text) for n in range(options["times"])]
    spans: list[tuple[float, float]] = []
    is_over = asyncio.Event()

    async def user(name: str) -> None:
        number = 0
        while not is_over.is_set():
            began = time.perf_counter()
            async with stage.timing():
                await one_turn(driver, name, number)
            spans.append((began, time.perf_counter()))
            number += 1

    async def stores() -> list[tuple[float, float]]:
        stored = []
        for n in range(options["times"]):
            await asyncio.sleep(_USUAL_S)
            began = time.perf_counter()
            await _store(driver, f"beside-{n}", text)
            stored.append((began, time.perf_counter()))
        is_over.set()
        return stored

    async with stage.measuring():
        users = asyncio.gather(*(user(f"user-{n}") for n in range(options["users"])))
        stored = await stores()
        await users
    longest = [
        max((end - begin for begin, end in spans if begin < done and end > began), default=0.0)
        for began, done in stored
    ]
    return {
        "huge_ms": median(alone) * 1000,
        "beside_ms": median(longest) * 1000,
        "usual_ms": median(end - begin for begin, end in spans) * 1000,
    }


async def _store(driver: Driver, user: str, text: str) -> float:
    began = time.perf_counter()
    await driver.append(user, [Line("user", text)])
    return time.perf_counter() - began
