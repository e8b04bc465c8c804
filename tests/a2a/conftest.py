from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agno_sql.memory.sql import SQLMemory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def memory(database_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url) as opened:
        yield opened


@pytest.fixture
async def sqlite_memory(sqlite_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(sqlite_url) as opened:
        yield opened
