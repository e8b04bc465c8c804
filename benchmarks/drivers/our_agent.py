"""The project's own agent on its own store."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

from agno_sql import Agent, ModelReply, SQLMemory
from benchmarks.conversation import Line, reply_to
from benchmarks.durability import PoolWitness

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from agno_sql import Message, ToolSpec
    from benchmarks.driver import Place

HISTORY: Final = 20


class InstantModel:
    """Answers at once."""

    name = "instant"

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> ModelReply:  # noqa: ARG002  (the protocol's)
        """Answer the last message."""
        return ModelReply(reply_to(messages[-1].content))

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        """Answer the last message in one piece."""
        reply = await self.reply(messages, tools)
        yield reply.content
        yield reply


class OurAgent:
    """One agent for all users; it shows the model the last twenty messages."""

    def __init__(self, memory: SQLMemory, witness: PoolWitness) -> None:
        self._memory = memory
        self._witness = witness
        self._agent = Agent(
            name="bench", model=InstantModel(), memory=memory, history_limit=HISTORY
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """As README shows it; the tables are upgraded on PostgreSQL too."""
        witness = PoolWitness(place.database)
        async with SQLMemory.open(
            place.sqlalchemy_url, capacity=place.capacity, migrate=True
        ) as memory:
            yield cls(memory, witness)

    async def run(self, user: str, text: str) -> str:
        """One run."""
        return (await self._agent.run(text, user)).content

    async def stored(self, user: str) -> list[Line]:
        """All that is kept."""
        return [Line(m.role, m.content) for m in await self._memory.get_messages(user)]

    async def durability(self) -> dict[str, str]:
        """What the pool's connections told when they were first used."""
        return self._witness.told
