"""PostgreSQL without any library but its driver, asyncpg: what is possible at all.

The tables are the store's in their simplest form. Connections are held, not pooled: a pool's reset
costs a round trip.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import asyncpg

from benchmarks.conversation import Line
from benchmarks.driver import MOST_CONNECTIONS
from benchmarks.drivers.batches import Batches
from benchmarks.durability import POSTGRES_QUESTIONS, named, together

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import timedelta

    from benchmarks.driver import Place

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

TABLES: Final = """
CREATE TABLE IF NOT EXISTS conversations (
    user_id text PRIMARY KEY, last_seq bigint NOT NULL, last_active_at timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    user_id text, seq bigint, role text NOT NULL, content text NOT NULL,
    created_at timestamptz NOT NULL, PRIMARY KEY (user_id, seq));
"""
_RESERVE: Final = """
INSERT INTO conversations AS c (user_id, last_seq, last_active_at) VALUES ($1, $2, $3)
ON CONFLICT (user_id) DO UPDATE
SET last_seq = c.last_seq + excluded.last_seq, last_active_at = excluded.last_active_at
RETURNING last_seq
"""
_INSERT: Final = "INSERT INTO messages VALUES ($1, $2, $3, $4, $5)"
_APPEND: Final = f"""
WITH c AS ({_RESERVE})
INSERT INTO messages
SELECT $1, c.last_seq - $2 + m.nr, m.role, m.content, $3
FROM c, unnest($4::text[], $5::text[]) WITH ORDINALITY AS m (role, content, nr)
"""
_APPEND_MANY: Final = """
WITH c AS (
    INSERT INTO conversations AS c (user_id, last_seq, last_active_at)
    SELECT k.user_id, k.count, $3 FROM unnest($1::text[], $2::bigint[]) AS k (user_id, count)
    ON CONFLICT (user_id) DO UPDATE
    SET last_seq = c.last_seq + excluded.last_seq, last_active_at = excluded.last_active_at
    RETURNING user_id, last_seq
)
INSERT INTO messages
SELECT c.user_id, c.last_seq - m.back, m.role, m.content, $3
FROM unnest($4::text[], $5::bigint[], $6::text[], $7::text[]) AS m (user_id, back, role, content)
JOIN c ON c.user_id = m.user_id
"""
_PRUNE: Final = """
DELETE FROM messages m USING conversations c
WHERE c.user_id = ANY($1::text[]) AND m.user_id = c.user_id AND m.seq <= c.last_seq - $2
"""
_INACTIVE: Final = "SELECT user_id FROM conversations WHERE last_active_at <= $1"
_READ: Final = "SELECT role, content FROM messages WHERE user_id = $1 ORDER BY seq DESC LIMIT $2"
_READ_MANY: Final = """
SELECT k.nr, m.role, m.content
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS k (user_id, most, nr)
CROSS JOIN LATERAL (
    SELECT seq, role, content FROM messages WHERE user_id = k.user_id ORDER BY seq DESC LIMIT k.most
) AS m
ORDER BY k.nr, m.seq
"""


class _Held:
    """At most ten connections, each given to one task at a time and kept open."""

    def __init__(self, connections: list[Connection], place: Place) -> None:
        self.connections = connections
        self.capacity = place.capacity
        self._free = list(connections)
        # First come, first served: who gives a connection back can't take it again at once.
        self._turn = asyncio.Semaphore(len(connections))

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        async with AsyncExitStack() as stack:
            connections = []
            for _ in range(MOST_CONNECTIONS):
                connection = await asyncpg.connect(place.address)
                stack.push_async_callback(connection.close)
                connections.append(connection)
            await connections[0].execute(TABLES)
            held = cls(connections, place)
            async with held.working():
                yield held

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Keep running what a driver runs in the background."""
        yield

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with self._turn:
            connection = self._free.pop()
            try:
                yield connection
            finally:
                self._free.append(connection)

    async def prune(self, connection: Connection, users: Sequence[str]) -> None:
        if self.capacity is not None:
            await connection.execute(_PRUNE, users, self.capacity)

    async def durability(self) -> dict[str, str]:
        """Every connection is asked; all of them write."""
        return together(
            [
                named(question, await connection.fetchval(question))
                for connection in self.connections
                for question in POSTGRES_QUESTIONS
            ]
        )


class InsertPerMessage(_Held):
    """A transaction a turn, a statement for the number and one for each message."""

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """Five round trips."""
        at = datetime.now(UTC)
        async with self.connection() as connection, connection.transaction():
            last = await connection.fetchval(_RESERVE, user, len(lines), at)
            for seq, (role, text) in enumerate(lines, start=last - len(lines) + 1):
                await connection.execute(_INSERT, user, seq, role, text, at)
            await self.prune(connection, [user])

    async def read(self, user: str, limit: int) -> list[Line]:
        """One round trip."""
        async with self.connection() as connection:
            return await _read(connection, user, limit)


class OneStatement(_Held):
    """A turn's messages in one statement, which is its own transaction."""

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One round trip, two with a prune."""
        async with self.connection() as connection:
            if self.capacity is None:
                await _append(connection, user, lines)
                return
            async with connection.transaction():
                await _append(connection, user, lines)
                await self.prune(connection, [user])

    async def read(self, user: str, limit: int) -> list[Line]:
        """One round trip."""
        async with self.connection() as connection:
            return await _read(connection, user, limit)


class GroupCommit(_Held):
    """One writer commits what waits together; each read is a query of its own."""

    _writer: Connection
    _writes: Batches[tuple[str, Sequence[Line]], None]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """One connection is the writer's."""
        self._writes = Batches(self._write)
        async with self.connection() as self._writer, self._writes.running():
            yield

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """Return when the batch is committed."""
        await self._writes.submit((user, lines))

    async def read(self, user: str, limit: int) -> list[Line]:
        """One round trip."""
        async with self.connection() as connection:
            return await _read(connection, user, limit)

    async def _write(self, batch: Sequence[tuple[str, Sequence[Line]]]) -> list[None]:
        if self.capacity is None:
            await _append_batch(self._writer, batch)
        else:
            async with self._writer.transaction():
                await _append_batch(self._writer, batch)
                await self.prune(self._writer, sorted({user for user, _ in batch}))
        return [None] * len(batch)


class GroupCommitAndReads(GroupCommit):
    """Group commit, and one reader that answers the reads that wait together by one query."""

    _reader: Connection
    _reads: Batches[tuple[str, int], list[Line]]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Two connections do all the work."""
        self._reads = Batches(self._read)
        async with super().working(), self.connection() as self._reader, self._reads.running():
            yield

    async def read(self, user: str, limit: int) -> list[Line]:
        """Return when the batch was read."""
        return await self._reads.submit((user, limit))

    async def delete_inactive(self, away: timedelta, *, progress: Callable[[int], object]) -> int:
        """A user a transaction, and as long for the others in between."""
        async with self.connection() as connection:
            rows = await connection.fetch(_INACTIVE, datetime.now(UTC) - away)
            for (user,) in rows:
                began = time.perf_counter()
                async with connection.transaction():
                    for table in ("messages", "conversations"):
                        await connection.execute(f"DELETE FROM {table} WHERE user_id = $1", user)
                progress(1)
                await asyncio.sleep(time.perf_counter() - began)
        return len(rows)

    async def _read(self, batch: Sequence[tuple[str, int]]) -> list[list[Line]]:
        if len(batch) == 1:
            return [await _read(self._reader, *batch[0])]
        users, limits = zip(*batch, strict=True)
        found: list[list[Line]] = [[] for _ in batch]
        for number, role, text in await self._reader.fetch(_READ_MANY, users, limits):
            found[number - 1].append(Line(role, text))
        return found


async def _append(connection: Connection, user: str, lines: Sequence[Line]) -> None:
    roles, texts = zip(*lines, strict=True)
    await connection.execute(_APPEND, user, len(lines), datetime.now(UTC), roles, texts)


async def _append_batch(
    connection: Connection, batch: Sequence[tuple[str, Sequence[Line]]]
) -> None:
    if len(batch) == 1:
        await _append(connection, *batch[0])
        return
    lines_of: dict[str, list[Line]] = {}
    for user, lines in batch:
        lines_of.setdefault(user, []).extend(lines)
    # Sorted, so that two processes lock the rows they share in one order.
    users = sorted(lines_of)
    rows: list[tuple[Any, ...]] = [
        (user, len(lines_of[user]) - 1 - n, role, text)
        for user in users
        for n, (role, text) in enumerate(lines_of[user])
    ]
    counts = [len(lines_of[user]) for user in users]
    await connection.execute(
        _APPEND_MANY, users, counts, datetime.now(UTC), *zip(*rows, strict=True)
    )


async def _read(connection: Connection, user: str, limit: int) -> list[Line]:
    rows = await connection.fetch(_READ, user, limit)
    return [Line(role, text) for role, text in reversed(rows)]
