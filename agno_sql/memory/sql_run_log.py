"""Runs in the user's own SQL database."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from agno_sql.errors import OutcomeUnknownError, StoreUnavailableError
from agno_sql.runs import BegunRun
from agno_sql.store import closing, fence, reads, run_rows, steps
from agno_sql.store import lease as lease_store
from agno_sql.store.read_together import Read
from agno_sql.store.writes import Write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.clock import Clock
    from agno_sql.message import Message, Usage
    from agno_sql.runs import Ending, Lease, NewRun, Renewal, RunKey, StoredRun
    from agno_sql.store.batches import Batches
    from agno_sql.store.database import Database


class SQLRunLog:
    """The RunLog of an SQLMemory; its methods raise the same store errors.

    A run's writes are also repeated when a commit's outcome is unknown: the lease tells what the
    run has stored already. Its steps wait up to 30 seconds for a database that is gone, as its
    model and tools were paid for.
    """

    def __init__(
        self, database: Database, batches: Batches, *, clock: Clock, capacity: int | None
    ) -> None:
        self._database = database
        self._batches = batches
        self._clock = clock
        self._capacity = capacity

    async def find(self, key: RunKey) -> StoredRun | None:
        """See RunLog.find."""
        if await self._batches.find(key) is False:
            return None
        return await self._database.read(lambda conn: run_rows.find(conn, key))

    async def begin(self, lease: Lease, new: NewRun, *, limit: int | None) -> BegunRun | None:
        """See RunLog.begin."""
        write = Write(
            kind="begin", key=lease.key.conversation, messages=[new.input], lease=lease, new=new
        )
        with suppress(OutcomeUnknownError):
            if (begun := await self._batches.write(write)) is not None:
                return await self._begun(lease, begun, limit)
        try:
            turn = await self._database.write(
                lambda conn: lease_store.begin(
                    conn, lease, new, at=self._clock.now(), capacity=self._capacity
                ),
                repeatable=True,
            )
        except lease_store.RunExistsError:
            return None
        return await self._begun(lease, turn, limit)

    async def resume(self, lease: Lease, *, limit: int | None) -> BegunRun | None:
        """See RunLog.resume."""
        turn = await self._database.write(
            lambda conn: lease_store.resume(
                conn, lease, at=self._clock.now(), capacity=self._capacity
            ),
            repeatable=True,
        )
        return await self._begun(lease, turn, limit)

    async def append(self, lease: Lease, message: Message) -> Message:
        """See RunLog.append."""
        return await self._step(
            Write(kind="step", key=lease.key.conversation, messages=[message], lease=lease),
            lambda conn: steps.append(conn, lease, message, at=self._clock.now()),
        )

    async def complete(self, lease: Lease, answer: Message, *, usage: Usage) -> Message:
        """See RunLog.complete."""
        return await self._step(
            Write(
                kind="complete",
                key=lease.key.conversation,
                messages=[answer],
                lease=lease,
                usage=usage,
            ),
            lambda conn: steps.complete(
                conn, lease, answer, usage=usage, at=self._clock.now(), capacity=self._capacity
            ),
        )

    async def close(self, lease: Lease, ending: Ending) -> None:
        """See RunLog.close."""
        await self._database.write(
            lambda conn: closing.close(
                conn, lease, ending, at=self._clock.now(), capacity=self._capacity
            ),
            repeatable=True,
        )

    async def park(self, lease: Lease) -> None:
        """See RunLog.park."""
        await self._database.write(
            lambda conn: fence.park(conn, lease, at=self._clock.now()), repeatable=True
        )

    async def renew(self, leases: list[Lease]) -> Renewal:
        """See RunLog.renew."""
        return await self._database.write(
            lambda conn: lease_store.renew(conn, leases, at=self._clock.now())
        )

    async def is_free(self, user_id: str, session_id: str) -> bool:
        """See RunLog.is_free."""
        return await self._database.read(
            lambda conn: lease_store.is_free(conn, (user_id, session_id), at=self._clock.now())
        )

    async def request_cancel(self, key: RunKey) -> bool:
        """See RunLog.request_cancel."""
        return await self._database.write(
            lambda conn: lease_store.request_cancel(
                conn, key, at=self._clock.now(), capacity=self._capacity
            ),
            repeatable=True,
        )

    async def interrupted(self, agent_id: str, *, limit: int, after: RunKey | None) -> list[RunKey]:
        """See RunLog.interrupted."""
        return await self._database.read(
            lambda conn: run_rows.interrupted(
                conn, agent_id, at=self._clock.now(), limit=limit, after=after
            )
        )

    async def _begun(
        self, lease: Lease, turn: list[Message] | None, limit: int | None
    ) -> BegunRun | None:
        if turn is None:
            return None
        # What others add from now on belongs to the next run.
        key, before = lease.key.conversation, turn[0].seq
        history: list[Message] | None = None
        with suppress(StoreUnavailableError):
            history = await self._batches.read(Read(key, limit, before, all_system=True))
        if history is None:
            history = await self._database.read(
                lambda conn: reads.window_messages(conn, key, limit=limit, before=before),
                patient=True,
            )
        return BegunRun(turn, history)

    async def _step(
        self, write: Write, store: Callable[[AsyncConnection], Awaitable[Message]]
    ) -> Message:
        assert write.lease is not None  # noqa: S101  (a step has one)
        lease, (message,) = write.lease, write.messages
        is_repeated = False
        try:
            if (stored := await self._batches.write(write)) is not None:
                return stored[0]
        except OutcomeUnknownError:
            is_repeated = True
        except StoreUnavailableError:
            pass  # it is waited for

        async def work(conn: AsyncConnection) -> Message:
            nonlocal is_repeated
            if is_repeated:
                before = await steps.stored_before(conn, lease, message)
                if before is not None:
                    return before
            is_repeated = True
            return await store(conn)

        return await self._database.write(work, repeatable=True, patient=True)
