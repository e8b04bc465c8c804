"""The runs that this process works on: who is next in a conversation, and their heartbeat."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from agno_sql.errors import (
    ConversationBusyError,
    RunCancelledError,
    RunInterruptedError,
    StoreError,
)
from agno_sql.ids import shown
from agno_sql.runs import run_lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from agno_sql.errors import RunError
    from agno_sql.memory.run_log import RunLog
    from agno_sql.runs import Lease

_log: Final = logging.getLogger(__name__)
_MOST_AT_ONCE: Final = 1000  # leases of one renewal, each is some parameters of a statement

# One for each log and event loop, as long as runs use it; each holds both, so that their ids can't
# be used again meanwhile.
_all: Final[WeakValueDictionary[tuple[int, int], LiveRuns]] = WeakValueDictionary()


def live_runs(log: RunLog) -> LiveRuns:
    """Return what is at work with *log* in the running event loop."""
    loop = asyncio.get_running_loop()
    return _all.setdefault((id(log), id(loop)), LiveRuns(log, loop))


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    members: int = 0


@dataclass(slots=True)
class _Held:
    lease: Lease
    stop: Callable[[RunError], None]
    due: float


class LiveRuns:
    """The runs of one log in one event loop."""

    def __init__(self, log: RunLog, loop: asyncio.AbstractEventLoop) -> None:
        self._log = log
        self._loop = loop
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._held: dict[str, _Held] = {}
        self._stops: dict[Callable[[RunError], None], str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None

    @contextmanager
    def stoppable(self, agent_id: str, stop: Callable[[RunError], None]) -> Iterator[None]:
        """Have ``interrupt_all`` of the agent call *stop*, also while its run waits for its turn."""
        self._stops[stop] = agent_id
        try:
            yield
        finally:
            del self._stops[stop]

    def interrupt_all(self, agent_id: str) -> int:
        """Have the agent's runs end with RunInterruptedError; return how many there were."""
        stops = [stop for stop, of in self._stops.items() if of == agent_id]
        for stop in stops:
            stop(RunInterruptedError("its process stops: the same run_id goes on with the run"))
        return len(stops)

    def is_queued(self, conversation: tuple[str, str]) -> bool:
        """Tell whether a run of this process has the conversation or waits for it."""
        return conversation in self._queues

    @asynccontextmanager
    async def turn(self, conversation: tuple[str, str], *, within_s: float) -> AsyncIterator[None]:
        """Enter when no other run of this process is in the conversation, first come first served.

        Raises:
            ConversationBusyError: That took longer than *within_s*.
        """
        queue = self._queues.setdefault(conversation, _Queue())
        queue.members += 1
        try:
            try:
                async with asyncio.timeout(within_s):
                    await queue.lock.acquire()
            except TimeoutError:
                raise busy(conversation, within_s) from None
            try:
                yield
            finally:
                queue.lock.release()
        finally:
            queue.members -= 1
            if not queue.members:
                del self._queues[conversation]

    @asynccontextmanager
    async def kept(self, lease: Lease, stop: Callable[[RunError], None]) -> AsyncIterator[None]:
        """Renew *lease* from now on, first after a third of it.

        *stop* is called if it is lost, or if its run is to be cancelled.
        """
        third = lease.duration.total_seconds() / 3
        self._held[lease.token] = _Held(lease, stop, self._loop.time() + third)
        self._schedule()
        try:
            yield
        finally:
            del self._held[lease.token]
            if not self._held:
                await self._rest()

    async def _rest(self) -> None:
        """Leave nothing behind: neither a timer, nor a renewal that outlives the runs it is for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.wait([self._beat])

    def look_now(self) -> None:
        """Renew, and look for requests to cancel, without waiting until a lease is due."""
        for held in self._held.values():
            held.due = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None and self._beat is None and self._held:
            due = min(held.due for held in self._held.values())
            self._timer = self._loop.call_at(due, self._start)

    def _start(self) -> None:
        self._timer = None
        self._beat = self._loop.create_task(self._renew())
        # Not at the end of the task: one that is cancelled before it begins has no end.
        self._beat.add_done_callback(self._go_on)

    def _go_on(self, _: asyncio.Task[None]) -> None:
        self._beat = None
        self._schedule()

    async def _renew(self) -> None:
        try:
            now = self._loop.time()
            # Those that are due soon go with the first: one statement for many runs.
            due = [held for held in self._held.values() if held.due <= now + _third(held) / 4]
            for held in due:
                held.due = now + _third(held)
            for start in range(0, len(due), _MOST_AT_ONCE):
                await self._renew_some(due[start : start + _MOST_AT_ONCE])
        except StoreError as error:
            # The leases may run out meanwhile. Then the fence decides, at the next write.
            _log.warning("leases could not be renewed: %s", error)

    async def _renew_some(self, some: list[_Held]) -> None:
        renewal = await self._log.renew([held.lease for held in some])
        for held in some:
            lease = held.lease
            if lease.token not in self._held:
                continue  # it has ended meanwhile
            if lease.token in renewal.lost:
                held.stop(run_lost(lease.key))
            elif lease.token in renewal.cancelled:
                held.stop(RunCancelledError(f"run {lease.key.run_id} was cancelled"))


def busy(conversation: tuple[str, str], within_s: float) -> ConversationBusyError:
    """Return the error for a conversation that another run had all the time."""
    user_id, session_id = conversation
    return ConversationBusyError(
        f"another run of user {shown(user_id)}, session {shown(session_id)} is still at work "
        f"after {within_s:g} s; try again later, or raise busy_timeout"
    )


def _third(held: _Held) -> float:
    return held.lease.duration.total_seconds() / 3
