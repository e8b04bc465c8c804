"""What the benchmark asks of everything it measures."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from benchmarks.conversation import Line

MOST_CONNECTIONS: Final = 10


@dataclass(frozen=True, slots=True)
class Place:
    """A fresh database, and how many messages a conversation may keep there (None: all).

    ``address`` is ``postgresql://postgres@127.0.0.1:port/name``, or the path of an SQLite file
    that is in WAL mode already.
    """

    database: str
    address: str
    capacity: int | None = None

    @property
    def sqlalchemy_url(self) -> str:
        """The address with the asynchronous driver, as SQLAlchemy takes it."""
        if self.database == "sqlite":
            return f"sqlite+aiosqlite:///{self.address}"
        return self.address.replace("postgresql://", "postgresql+asyncpg://", 1)


class Driver(Protocol):
    """One way to keep conversations. Used by many tasks of one event loop at once."""

    @classmethod
    def open(cls, place: Place) -> AbstractAsyncContextManager[Driver]:
        """Make the tables where they are missing, and be ready for the first turn."""
        ...

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """Store *lines* at the end of the user's conversation; durable when it returns."""
        ...

    async def read(self, user: str, limit: int) -> list[Line]:
        """Return the newest *limit* messages of the user, oldest first."""
        ...

    async def durability(self) -> dict[str, str]:
        """Return what the connections that wrote say about their durability."""
        ...


class Chat(Protocol):
    """One way to run an agent whose model answers at once with the answer of that turn."""

    @classmethod
    def open(cls, place: Place) -> AbstractAsyncContextManager[Chat]:
        """Make the tables where they are missing, and be ready for the first run."""
        ...

    async def run(self, user: str, text: str) -> str:
        """Run the agent on what *user* says; return its answer, which is stored by then."""
        ...

    async def stored(self, user: str) -> list[Line]:
        """Return what is stored of the user's conversation, in order."""
        ...


def load(reference: str) -> Any:
    """Return the class that ``module:Class`` names; its libraries are imported by that."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
