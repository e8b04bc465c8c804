"""SQLite without any library but a driver: what is possible at all.

WAL, synchronous=FULL, and the store's tables in their simplest form.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from benchmarks.conversation import Line
from benchmarks.drivers.batches import Batches
from benchmarks.durability import of_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from benchmarks.driver import Place

_Answer = TypeVar("_Answer")

PRAGMAS: Final = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS conversations (
    user_id TEXT PRIMARY KEY, last_seq INTEGER NOT NULL, last_active_at TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS messages (
    user_id TEXT, seq INTEGER, role TEXT NOT NULL, content TEXT NOT NULL,
    created_at TEXT NOT NULL, PRIMARY KEY (user_id, seq))""",
)
RESERVE: Final = (
    "INSERT INTO conversations VALUES (?, ?, ?) ON CONFLICT (user_id) DO UPDATE "
    "SET last_seq = last_seq + excluded.last_seq, last_active_at = excluded.last_active_at"
)
RESERVE_RETURNING: Final = f"{RESERVE} RETURNING last_seq"
INSERT: Final = "INSERT INTO messages VALUES (?, ?, ?, ?, ?)"
PRUNE: Final = (
    "DELETE FROM messages WHERE user_id = ?1 AND seq <= "
    "(SELECT last_seq FROM conversations WHERE user_id = ?1) - ?2"
)
INACTIVE: Final = "SELECT user_id FROM conversations WHERE last_active_at <= ?"
READ: Final = "SELECT role, content FROM messages WHERE user_id = ? ORDER BY seq DESC LIMIT ?"


def now() -> str:
    """Return the time as it is stored."""
    return datetime.now(UTC).isoformat()


class Blocking:
    """The standard library's driver, called in the event loop, which waits for each commit."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.capacity = place.capacity
        self.connection = sqlite3.connect(
            place.address, isolation_level=None, check_same_thread=False
        )
        for statement in (*PRAGMAS, *TABLES):
            self.connection.execute(statement)

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """One connection."""
        driver = cls(place)
        with closing(driver.connection):
            async with driver.working():
                yield driver

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Keep running what a driver runs in the background."""
        yield

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One transaction."""
        self.append_all([(user, lines)])

    async def read(self, user: str, limit: int) -> list[Line]:
        """One query."""
        return self.read_one(user, limit)

    async def durability(self) -> dict[str, str]:
        """The one connection is asked."""
        return of_connection(self.connection)

    def append_all(self, batch: Sequence[tuple[str, Sequence[Line]]]) -> list[None]:
        """Store all of *batch* in one transaction."""
        at, execute = now(), self.connection.execute
        execute("BEGIN IMMEDIATE")
        rows: list[tuple[Any, ...]] = []
        for user, lines in batch:
            (last,) = execute(RESERVE_RETURNING, (user, len(lines), at)).fetchone()
            first = last - len(lines) + 1
            rows += [(user, seq, *line, at) for seq, line in enumerate(lines, start=first)]
        self.connection.executemany(INSERT, rows)
        if self.capacity is not None:
            users = {user for user, _ in batch}
            self.connection.executemany(PRUNE, [(user, self.capacity) for user in users])
        execute("COMMIT")
        return [None] * len(batch)

    def read_one(self, user: str, limit: int) -> list[Line]:
        """Return the newest messages of one user."""
        return [Line(*row) for row in self.connection.execute(READ, (user, limit))][::-1]

    def read_all(self, batch: Sequence[tuple[str, int]]) -> list[list[Line]]:
        """Return the newest messages of each user of *batch*."""
        return [self.read_one(user, limit) for user, limit in batch]


class OneThread(Blocking):
    """The same in a thread of its own, a transaction a turn, so that the event loop goes on."""

    _thread: ThreadPoolExecutor

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """One connection, one thread."""
        with ThreadPoolExecutor(1) as self._thread:
            yield

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One hop to the thread."""
        await self.hop(lambda: self.append_all([(user, lines)]))

    async def read(self, user: str, limit: int) -> list[Line]:
        """One hop to the thread."""
        return await self.hop(lambda: self.read_one(user, limit))

    async def hop(self, work: Callable[[], _Answer]) -> _Answer:
        """Return what *work* returns in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class OneThreadGroup(OneThread):
    """What waits goes in one transaction and one hop; so do the reads that wait together."""

    _writes: Batches[tuple[str, Sequence[Line]], None]
    _reads: Batches[tuple[str, int], list[Line]]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """One connection, one thread."""
        self._writes = Batches(lambda batch: self.hop(lambda: self.append_all(batch)))
        self._reads = Batches(lambda batch: self.hop(lambda: self.read_all(batch)))
        async with super().working(), self._writes.running(), self._reads.running():
            yield

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """Return when the batch is committed."""
        await self._writes.submit((user, lines))

    async def read(self, user: str, limit: int) -> list[Line]:
        """Return when the batch was read."""
        return await self._reads.submit((user, limit))
