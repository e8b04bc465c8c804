"""SQLite through aiosqlite, where each statement is a hop to the connection's thread."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

import aiosqlite

from benchmarks.conversation import Line
from benchmarks.drivers.batches import Batches
from benchmarks.drivers.raw_sqlite import (
    INACTIVE,
    INSERT,
    PRAGMAS,
    PRUNE,
    READ,
    RESERVE,
    RESERVE_RETURNING,
    TABLES,
    now,
)
from benchmarks.durability import SQLITE_QUESTIONS, named, together

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import timedelta

    from benchmarks.driver import Place

_INSERT_BACK: Final = (
    "INSERT INTO messages SELECT user_id, last_seq - ?, ?, ?, ? FROM conversations "
    "WHERE user_id = ?"
)
# Numbers have no gaps, so the newest are found by their numbers.
_READ_MANY: Final = """
SELECT k.key, m.role, m.content
FROM json_each(?) AS k
JOIN conversations AS c ON c.user_id = k.value ->> 0
JOIN messages AS m ON m.user_id = c.user_id AND m.seq > c.last_seq - (k.value ->> 1)
ORDER BY k.key, m.seq
"""


class InsertPerMessage:
    """A transaction a turn, a statement for the number and one for each message."""

    def __init__(self, connection: aiosqlite.Connection, place: Place) -> None:
        self.connection = connection
        self.capacity = place.capacity
        self.path = place.address
        self._lock = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """One connection, one thread."""
        async with aiosqlite.connect(place.address, isolation_level=None) as connection:
            for statement in (*PRAGMAS, *TABLES):
                await connection.execute(statement)
            driver = cls(connection, place)
            async with driver.working():
                yield driver

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Keep running what a driver runs in the background."""
        yield

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One transaction, six hops."""
        at = now()
        async with self._lock:
            await self.connection.execute("BEGIN IMMEDIATE")
            rows = await self.connection.execute_fetchall(RESERVE_RETURNING, (user, len(lines), at))
            (last,) = next(iter(rows))
            for seq, (role, text) in enumerate(lines, start=last - len(lines) + 1):
                await self.connection.execute(INSERT, (user, seq, role, text, at))
            if self.capacity is not None:
                await self.connection.execute(PRUNE, (user, self.capacity))
            await self.connection.execute("COMMIT")

    async def read(self, user: str, limit: int) -> list[Line]:
        """One hop."""
        rows = await self.connection.execute_fetchall(READ, (user, limit))
        return [Line(role, text) for role, text in rows][::-1]

    async def durability(self) -> dict[str, str]:
        """The connection that writes is asked."""
        return together(
            [
                named(question, next(iter(await self.connection.execute_fetchall(question)))[0])
                for question in SQLITE_QUESTIONS
            ]
        )


class Group(InsertPerMessage):
    """What waits goes in one transaction of a fixed number of hops; reads go in one query.

    Reads have a connection of their own, so that they do not queue behind the commits.
    """

    _reader: aiosqlite.Connection
    _writes: Batches[tuple[str, Sequence[Line]], None]
    _reads: Batches[tuple[str, int], list[Line]]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Two connections, each with its thread."""
        self._writes, self._reads = Batches(self._write), Batches(self._read)
        async with (
            aiosqlite.connect(self.path, isolation_level=None) as self._reader,
            self._writes.running(),
            self._reads.running(),
        ):
            yield

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """Return when the batch is committed."""
        await self._writes.submit((user, lines))

    async def read(self, user: str, limit: int) -> list[Line]:
        """Return when the batch was read."""
        return await self._reads.submit((user, limit))

    async def delete_inactive(self, away: timedelta, *, progress: Callable[[int], object]) -> int:
        """A user a transaction, and as long for the others in between."""
        until = (datetime.now(UTC) - away).isoformat()
        users = [user for (user,) in await self._reader.execute_fetchall(INACTIVE, (until,))]
        for user in users:
            async with self._lock:
                began = time.perf_counter()
                await self.connection.execute("BEGIN IMMEDIATE")
                for table in ("messages", "conversations"):
                    await self.connection.execute(f"DELETE FROM {table} WHERE user_id = ?", (user,))
                await self.connection.execute("COMMIT")
            progress(1)
            await asyncio.sleep(time.perf_counter() - began)
        return len(users)

    async def _write(self, batch: Sequence[tuple[str, Sequence[Line]]]) -> list[None]:
        at = now()
        lines_of: dict[str, list[Line]] = {}
        for user, lines in batch:
            lines_of.setdefault(user, []).extend(lines)
        rows: list[tuple[Any, ...]] = [
            (len(lines) - 1 - n, role, text, at, user)
            for user, lines in lines_of.items()
            for n, (role, text) in enumerate(lines)
        ]
        counts = [(user, len(lines), at) for user, lines in lines_of.items()]
        connection = self.connection
        async with self._lock:
            await connection.execute("BEGIN IMMEDIATE")
            await connection.executemany(RESERVE, counts)
            await connection.executemany(_INSERT_BACK, rows)
            if self.capacity is not None:
                await connection.executemany(PRUNE, [(user, self.capacity) for user in lines_of])
            await connection.execute("COMMIT")
        return [None] * len(batch)

    async def _read(self, batch: Sequence[tuple[str, int]]) -> list[list[Line]]:
        found: list[list[Line]] = [[] for _ in batch]
        for number, role, text in await self._reader.execute_fetchall(
            _READ_MANY, (json.dumps(batch),)
        ):
            found[number].append(Line(role, text))
        return found
