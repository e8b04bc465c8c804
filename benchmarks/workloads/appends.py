"""Appends alone: of many users who are at their capacity already, and of one for a long time."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any

from benchmarks.conversation import check, last_lines, question, turn_of

if TYPE_CHECKING:
    from benchmarks.driver import Driver
    from benchmarks.stage import Stage


async def appends(driver: Driver, options: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Let *users* at once append *turns* turns each, after *before* turns that do not count."""
    before: int = options["before"]
    turns: int = options["turns"]
    kept: int | None = options["kept"]
    names = [f"user-{n}" for n in range(options["users"])]

    async def user(name: str) -> int:
        for turn in range(before, before + turns):
            if not stage.has_time:
                return turn
            async with stage.timing():
                await driver.append(name, turn_of(name, turn))
        return before + turns

    for name in names:
        await driver.append(name, [line for n in range(before) for line in turn_of(name, n)])
    async with stage.measuring():
        made = await asyncio.gather(*(user(name) for name in names))
    for name, turns_made in zip(names, made, strict=True):
        most = kept or 2 * turns_made
        check(await driver.read(name, most + 50), last_lines(name, turns_made, most), name)
    return {}


async def steady(driver: Driver, options: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Append *appends* messages to one conversation, *at_once* together; tell its pace over time.

    ``pace`` has the appends per second of each tenth of the way.
    """
    numbers = iter(range(options["appends"]))
    tenth, kept = options["appends"] // 10, options["kept"]

    async def some() -> None:
        for number in numbers:
            async with stage.timing():
                await driver.append("user", [question("user", number)])
            if len(stage.latencies) % tenth == 0:
                marks.append(time.perf_counter())

    async with stage.measuring():
        marks = [time.perf_counter()]
        await asyncio.gather(*(some() for _ in range(options["at_once"])))
    found = await driver.read("user", kept + 50)
    # Appends that run together are in no order of their own; each must be there once.
    newest = {question("user", n) for n in range(options["appends"] - 2 * kept, options["appends"])}
    assert len(found) == len(set(found)) == kept, f"{len(found)} messages are kept, not {kept}"
    assert set(found) <= newest, "an old message was kept"
    pace = [tenth / (b - a) for a, b in itertools.pairwise(marks)]
    first, second = marks[5] - marks[0], marks[10] - marks[5]  # a tenth alone is half chance
    return {"pace": pace, "second_to_first": first / second}
