"""Reads: the newest hundred messages of a user that chance picks."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import TYPE_CHECKING, Any, Final

from benchmarks.conversation import check, last_lines, turn_of

if TYPE_CHECKING:
    from benchmarks.driver import Driver
    from benchmarks.stage import Stage

READ: Final = 100
_FILLED_AT_ONCE: Final = 16


async def fill(driver: Driver, options: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Give each of *users* *turns* turns; stop with fewer users when *seconds* have passed.

    ``names`` are those who have all of them: a library may fail under many writers.
    """
    give_up_at = time.monotonic() + options["seconds"]
    users = iter(range(options["users"]))
    names: list[str] = []

    async def some() -> None:
        for number in users:
            if time.monotonic() > give_up_at:
                return
            name = f"user-{number}"
            lines = [line for turn in range(options["turns"]) for line in turn_of(name, turn)]
            try:
                await driver.append(name, lines)
            except Exception as error:  # noqa: BLE001  (what a library raises is shown)
                stage.errors.append(f"{type(error).__name__}: {error}"[:300])
            else:
                names.append(name)

    async with stage.measuring():
        await asyncio.gather(*(some() for _ in range(_FILLED_AT_ONCE)))
    return {"names": names}


async def reads(driver: Driver, options: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Read *reads* times, *at_once* tasks together, of *names* that have *turns* turns each."""
    left = iter(range(options["reads"]))
    names: list[str] = options["names"]
    expected = {name: last_lines(name, options["turns"], READ) for name in names}

    async def some(seed: int) -> None:
        chance = Random(seed)
        for _ in left:
            if not stage.has_time:
                return
            name = chance.choice(names)
            async with stage.timing():
                found = await driver.read(name, READ)
            check(found, expected[name], name)

    async with stage.measuring():
        await asyncio.gather(*(some(seed) for seed in range(options["at_once"])))
    return {"users": len(names)}
