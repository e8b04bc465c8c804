"""Processes that write to one conversation at its capacity, and others that delete it meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from agno_sql.clock import SystemClock
from agno_sql.memory.sql import SQLMemory
from tests.store.examined import findings
from tests.support.writer import Acknowledged, Writer, writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

USER = "user-0"
PROCESSES = 2
EACH = 150


def started(stack: ExitStack, url: str, capacity: int) -> list[Writer]:
    writers = [
        stack.enter_context(
            writer(url, name=f"p{n}", users=1, messages=EACH, capacity=capacity, tasks=5)
        )
        for n in range(PROCESSES)
    ]
    for each in writers:
        each.wait_until_ready()
    for each in writers:
        each.go()
    return writers


def all_acknowledged(writers: list[Writer]) -> list[Acknowledged]:
    reports = [report for each in writers for report in each.acknowledged()]
    assert [each.process.wait() for each in writers] == [0] * len(writers)
    return reports


async def while_they_write(
    writers: list[Writer], do: Callable[[], Awaitable[None]]
) -> list[Acknowledged]:
    """Return what they acknowledged; *do* is repeated until they have ended."""
    ended = asyncio.create_task(asyncio.to_thread(all_acknowledged, writers))
    times = 0
    while not ended.done():
        await do()
        times += 1
    assert times > 5, "they had ended before anything could happen"
    return await ended


@pytest.mark.guarantee("G56")
@pytest.mark.parametrize("capacity", [1, 4])
async def test_a_conversation_is_never_beyond_its_capacity_whoever_writes_to_it(
    database_url: str, capacity: int
) -> None:
    async with SQLMemory.open(database_url, capacity=capacity) as memory:
        seen: list[int] = []

        async def look() -> None:
            stored = [message.seq or 0 for message in await memory.get_messages(USER)]
            assert len(stored) <= capacity
            assert stored == list(range(stored[0], stored[-1] + 1)) if stored else True
            seen.extend(stored[-1:])

        with ExitStack() as stack:
            acknowledged = await while_they_write(started(stack, database_url, capacity), look)
        last = PROCESSES * EACH
        assert seen == sorted(seen)
        assert sorted(report.seq for report in acknowledged) == list(range(1, last + 1))
        kept = {
            report.seq: report.content for report in acknowledged if report.seq > last - capacity
        }
        stored = await memory.get_messages(USER)
        assert {message.seq: message.content for message in stored} == kept
    assert await findings(database_url, now=SystemClock().now()) == []


@pytest.mark.guarantee("G56")
@pytest.mark.parametrize("how", ["erase", "clear"])
async def test_deletions_among_writes_at_capacity_leave_nothing_broken(
    database_url: str, how: str
) -> None:
    async with SQLMemory.open(database_url, capacity=3) as memory:

        async def delete() -> None:
            await (memory.erase(USER) if how == "erase" else memory.clear(USER))
            await asyncio.sleep(0.005)  # or nobody else would get the file's lock

        with ExitStack() as stack:
            acknowledged = await while_they_write(started(stack, database_url, 3), delete)
        assert len(acknowledged) == PROCESSES * EACH
        if how == "clear":  # numbers go on
            assert sorted(r.seq for r in acknowledged) == list(range(1, PROCESSES * EACH + 1))
        stored = await memory.get_messages(USER)
        assert len(stored) <= 3
        assert {(m.seq, m.content) for m in stored} <= {(r.seq, r.content) for r in acknowledged}
    assert await findings(database_url, now=SystemClock().now()) == []
