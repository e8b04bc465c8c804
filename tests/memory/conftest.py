"""An SQLMemory on each database, whose time stands still until a test moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from agno_sql.memory.sql import SQLMemory
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest_asyncio.fixture
async def memory(database_url: str, clock: FakeClock) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url, clock=clock) as memory:
        yield memory
