"""A process of one's own inside the test's, which dies at a chosen write to the database."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

from agno_sql.memory.sql import SQLMemory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from agno_sql.clock import Clock
    from agno_sql.memory.run_log import RunLog
    from agno_sql.message import Message, Usage
    from agno_sql.runs import BegunRun, Ending, Lease, NewRun, Renewal, RunKey, StoredRun

T = TypeVar("T")


@dataclass(frozen=True)
class Death:
    """Which write of a run is the last of its process, and whether it is stored."""

    write: int
    is_stored: bool


def deaths(writes: int) -> st.SearchStrategy[Death | None]:
    """Return when a process dies that would make so many *writes*, if at all."""
    return st.none() | st.builds(Death, st.integers(0, writes - 1), st.booleans())


class ProcessDied(BaseException):
    """Raised in place of a process's end."""


class Told:
    """Told what the log has stored, whether or not the process lives to know it."""

    def begun(self, lease: Lease, begun: BegunRun | None) -> None:
        raise NotImplementedError

    def appended(self, lease: Lease, message: Message) -> None:
        raise NotImplementedError

    def completed(self, lease: Lease, answer: Message) -> None:
        raise NotImplementedError

    def closed(self, lease: Lease, ending: Ending) -> None:
        raise NotImplementedError

    def asked_to_cancel(self, key: RunKey, *, was_running: bool) -> None:
        raise NotImplementedError


class MortalLog:
    """A RunLog that does one thing after the other, and whose process may die at a write.

    Everything it is asked for afterwards raises too: a dead process closes nothing.
    """

    def __init__(self, log: RunLog, told: Told) -> None:
        self._log = log
        self._told = told
        self.lock = asyncio.Lock()
        self.is_dead = False
        self.death: Death | None = None
        self._writes = 0

    def doom(self, death: Death | None) -> None:
        """Let the process die at a write from now on."""
        self.death, self._writes = death, 0

    async def find(self, key: RunKey) -> StoredRun | None:
        return await self._read(lambda: self._log.find(key))

    async def begin(self, lease: Lease, new: NewRun, *, limit: int | None) -> BegunRun | None:
        return await self._write(
            lambda: self._log.begin(lease, new, limit=limit),
            lambda begun: self._told.begun(lease, begun),
        )

    async def resume(self, lease: Lease, *, limit: int | None) -> BegunRun | None:
        return await self._write(
            lambda: self._log.resume(lease, limit=limit),
            lambda begun: self._told.begun(lease, begun),
        )

    async def append(self, lease: Lease, message: Message) -> Message:
        return await self._write(
            lambda: self._log.append(lease, message),
            lambda stored: self._told.appended(lease, stored),
        )

    async def complete(self, lease: Lease, answer: Message, *, usage: Usage) -> Message:
        return await self._write(
            lambda: self._log.complete(lease, answer, usage=usage),
            lambda stored: self._told.completed(lease, stored),
        )

    async def close(self, lease: Lease, ending: Ending) -> None:
        await self._write(
            lambda: self._log.close(lease, ending), lambda _: self._told.closed(lease, ending)
        )

    async def park(self, lease: Lease) -> None:
        await self._read(lambda: self._log.park(lease))

    async def renew(self, leases: list[Lease]) -> Renewal:
        return await self._read(lambda: self._log.renew(leases))

    async def is_free(self, user_id: str, session_id: str) -> bool:
        return await self._read(lambda: self._log.is_free(user_id, session_id))

    async def request_cancel(self, key: RunKey) -> bool:
        was_running = await self._read(lambda: self._log.request_cancel(key))
        self._told.asked_to_cancel(key, was_running=was_running)
        return was_running

    async def interrupted(self, agent_id: str, *, limit: int, after: RunKey | None) -> list[RunKey]:
        return await self._read(lambda: self._log.interrupted(agent_id, limit=limit, after=after))

    async def _read(self, work: Callable[[], Awaitable[T]]) -> T:
        async with self.lock:
            if self.is_dead:
                raise ProcessDied
            return await work()

    async def _write(self, work: Callable[[], Awaitable[T]], tell: Callable[[T], None]) -> T:
        async with self.lock:
            dies = self.death is not None and self.death.write == self._writes
            self._writes += 1
            if dies and self.death is not None and not self.death.is_stored:
                self.is_dead = True
            if self.is_dead:
                raise ProcessDied
            result = await work()
            tell(result)
            if dies:
                self.is_dead = True
                raise ProcessDied
            return result


class Process(SQLMemory):
    """The memory as one process has it open."""

    def __init__(
        self, engine: AsyncEngine, *, capacity: int | None, clock: Clock, told: Told
    ) -> None:
        super().__init__(engine, capacity=capacity, clock=clock)
        self.log = MortalLog(super().run_log, told)

    @property
    def run_log(self) -> RunLog:
        return self.log


async def until_it_dies(work: Awaitable[T]) -> T:
    """Return what *work* returns; with its process everything else of it ends too."""
    try:
        return await work
    except ProcessDied:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        raise
