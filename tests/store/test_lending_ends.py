"""Connections that stay at hand, when memories, event loops and pools come to their end."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest
from sqlalchemy import QueuePool

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.store.engine import open_engine
from agno_sql.store.lending import Lender


def leaks() -> list[str]:
    """Return what is told of connections that nobody has closed.

    Event loops are none of it: asyncio.run closes its own, so it is another test's.
    """
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        gc.collect()
        gc.collect()
    told = [str(warning.message)[:75] for warning in seen]
    return [one for one in told if not one.startswith("unclosed event loop")]


async def ask(driver: Any) -> None:
    await driver.execute_fetchall("SELECT 1")


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_memory_that_is_cancelled_again_while_it_is_closed_leaves_no_connection(
    database_url: str, turns: int
) -> None:
    async def main() -> None:
        opened = asyncio.Event()

        async def use() -> None:
            async with SQLMemory.open(database_url) as memory:
                await memory.add(Message.user("hi"), "alice")
                opened.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(use())
        await opened.wait()
        task.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    leaks()  # of other tests
    asyncio.run(main())
    assert leaks() == []


def test_event_loops_that_come_and_go_take_nothing_of_the_pool_with_them(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    assert isinstance(engine.pool, QueuePool)
    lender = Lender(engine)

    async def main() -> None:
        lender.keep()
        for _ in range(5):
            await asyncio.to_thread(lambda: asyncio.run(lender.lend(ask)))
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await engine.dispose()

    asyncio.run(main())


@pytest.mark.parametrize("left", [10, 1])
async def test_nothing_stays_at_hand_while_others_may_wait_for_the_pool(
    sqlite_url: str, left: int
) -> None:
    engine = open_engine(sqlite_url)
    assert isinstance(engine.pool, QueuePool)
    lender = Lender(engine)
    lender.keep()
    others = [await engine.connect() for _ in range(15 - left)]
    await asyncio.gather(*(lender.lend(ask) for _ in range(20)))
    assert engine.pool.checkedout() == max(engine.pool.size(), len(others))
    for other in others:
        await other.close()
    await lender.stop()
    assert engine.pool.checkedout() == 0
    await engine.dispose()
