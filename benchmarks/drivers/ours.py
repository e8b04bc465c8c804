"""The project's own store, through its public face alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from agno_sql import Message, SQLMemory
from benchmarks.conversation import Line
from benchmarks.durability import PoolWitness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.driver import Place


class Ours:
    """SQLMemory, opened by its URL."""

    def __init__(self, memory: SQLMemory, witness: PoolWitness) -> None:
        self.memory = memory
        self._witness = witness

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """As README shows it; the tables are upgraded on PostgreSQL too."""
        witness = PoolWitness(place.database)
        async with SQLMemory.open(
            place.sqlalchemy_url, capacity=place.capacity, migrate=True
        ) as memory:
            yield cls(memory, witness)

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One extend."""
        await self.memory.extend(
            [(Message.user if role == "user" else Message.assistant)(text) for role, text in lines],
            user,
        )

    async def read(self, user: str, limit: int) -> list[Line]:
        """One get_messages."""
        return [Line(m.role, m.content) for m in await self.memory.get_messages(user, limit=limit)]

    async def durability(self) -> dict[str, str]:
        """What the pool's connections told when they were first used."""
        return self._witness.told
