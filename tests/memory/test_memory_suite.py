"""Every memory of ours keeps what every memory promises."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.sql import SQLMemory
from agno_sql.testing.memory_suite import MemorySuite, OpenMemory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from agno_sql.memory.protocol import Memory

# The suite itself is public and carries no marks of ours.
pytestmark = [
    pytest.mark.guarantee("G1"),
    pytest.mark.guarantee("G3"),
    pytest.mark.guarantee("G7"),
    pytest.mark.guarantee("G9"),
    pytest.mark.guarantee("G10"),
    pytest.mark.guarantee("G12"),
    pytest.mark.guarantee("G13"),
]


def opens(url: str) -> OpenMemory:
    def open_memory(capacity: int | None = 100) -> AbstractAsyncContextManager[Memory]:
        return SQLMemory.open(url, capacity=capacity)

    return open_memory


class TestInMemory(MemorySuite):
    @pytest.fixture
    def open_memory(self) -> OpenMemory:
        @asynccontextmanager
        async def open_memory(capacity: int | None = 100) -> AsyncIterator[Memory]:
            yield InMemory(capacity)

        return open_memory


class TestSQLite(MemorySuite):
    @pytest.fixture
    def open_memory(self, sqlite_url: str) -> OpenMemory:
        return opens(sqlite_url)


class TestPostgreSQL18(MemorySuite):
    @pytest.fixture
    def open_memory(self, postgres_url: str) -> OpenMemory:
        return opens(postgres_url)


class TestPostgreSQL16(MemorySuite):
    @pytest.fixture
    def open_memory(self, postgres_16_url: str) -> OpenMemory:
        return opens(postgres_16_url)


@pytest.mark.usefixtures("portable")
class TestSQLiteThePortableWay(TestSQLite):
    pass


@pytest.mark.usefixtures("portable")
class TestPostgreSQL18ThePortableWay(TestPostgreSQL18):
    pass
