"""What one process holds in memory after it has served very many users."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

from benchmarks.stage import resident_mb
from benchmarks.workloads.turns import one_turn

if TYPE_CHECKING:
    from benchmarks.driver import Driver
    from benchmarks.stage import Stage


async def many_users(driver: Driver, options: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Let each of *users* make one turn, *at_once* together.

    ``grown_mb`` is what the process holds more at the end than after the first hundredth.
    """
    users = options["users"]
    early = max(options["at_once"], users // 100)

    async def some(names: range) -> None:
        left = iter(names)

        async def one_after_another() -> None:
            for number in left:
                async with stage.timing():
                    await one_turn(driver, f"user-{number}", 0)

        await asyncio.gather(*(one_after_another() for _ in range(options["at_once"])))

    async with stage.measuring():
        await some(range(early))
        gc.collect()
        held = resident_mb()
        await some(range(early, users))
        gc.collect()
        grown = resident_mb() - held
    return {"users": users, "grown_mb": grown}
