"""An SQLMemory on each database, whose time stands still until a test moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from agno_sql.memory.sql import SQLMemory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.clock import FakeClock


@pytest_asyncio.fixture
async def memory(database_url: str, clock: FakeClock) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url, clock=clock) as memory:
        yield memory
