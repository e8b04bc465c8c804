"""How a suite opens the memory under test, and what its tests say about messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from agno_sql.memory.protocol import Memory
    from agno_sql.message import Message

# One name that Unicode writes in two ways.
NFC_NAME: Final = "Zo\u00eb"
NFD_NAME: Final = "Zoe\u0308"


class OpenMemory(Protocol):
    """Opens an empty memory of the given capacity and closes it at the end."""

    def __call__(self, capacity: int | None = 100) -> AbstractAsyncContextManager[Memory]:
        """Return the memory as an asynchronous context manager."""
        ...


@pytest.mark.asyncio
class MemoryTest:
    """Opens the memory under test for the promises of one topic."""

    @pytest.fixture
    def open_memory(self, *_args: Any, **_fixtures: Any) -> OpenMemory:
        """Return what opens the memory under test; your override may ask for fixtures."""
        raise NotImplementedError("override the fixture open_memory")

    @pytest_asyncio.fixture
    async def memory(self, open_memory: OpenMemory) -> AsyncIterator[Memory]:
        """Yield an empty memory that keeps 100 messages a session."""
        async with open_memory() as memory:
            yield memory


def numbered(messages: list[Message]) -> list[tuple[int | None, str]]:
    """Return seq and content of each message."""
    return [(message.seq, message.content) for message in messages]


def seq_of(message: Message) -> int:
    """Return the seq of a stored message."""
    assert message.seq is not None, "a stored message has a seq"
    return message.seq
