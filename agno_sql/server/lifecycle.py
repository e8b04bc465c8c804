"""The server's own work: taking up interrupted runs, and stopping without losing one."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from agno_sql.errors import AgnoSQLError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta

    from agno_sql.agent.agent import Agent
    from agno_sql.server.ongoing import OngoingRuns

_log: Final = logging.getLogger(__name__)
PARK_WITHIN_S: Final = 15.0
"""How long interrupted runs may take to be given back, after the grace period."""

_PAUSE_S: Final = 0.1


class Lifecycle:
    """Recovers interrupted runs while it runs, and ends what is at work when it stops."""

    def __init__(self, agent: Agent, ongoing: OngoingRuns, *, grace: timedelta) -> None:
        self._agent = agent
        self._ongoing = ongoing
        self._grace = grace
        self._timer: asyncio.Task[None] | None = None
        self._recoveries: set[asyncio.Task[None]] = set()
        self._stop: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Recover at the start and then every lease; stop at the end."""
        self._timer = asyncio.create_task(self._recover_every_lease())
        try:
            yield
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Begin nothing any more, and return when nothing is at work.

        Runs may go on for the grace period; what is not done by then is interrupted, so that it
        can be gone on with by another process at once. Safe to call again.
        """
        if self._stop is None:
            self._stop = asyncio.create_task(self._end())
        await asyncio.shield(self._stop)

    async def _end(self) -> None:
        self._ongoing.stop()
        if self._timer is not None:
            self._timer.cancel()
        at_work = await _left(
            self._ongoing.tasks | self._recoveries, within_s=self._grace.total_seconds()
        )
        if at_work:
            _log.warning("interrupting %d tasks after the grace period", len(at_work))
        give_up_at = asyncio.get_running_loop().time() + PARK_WITHIN_S
        while at_work and asyncio.get_running_loop().time() < give_up_at:
            # Again and again: a recovery goes on with the next of many interrupted runs.
            self._agent.interrupt_runs()
            at_work = await _left(at_work, within_s=_PAUSE_S)

    async def _recover_every_lease(self) -> None:
        while True:
            # Each by itself: a recovered run may take longer than a lease.
            task = asyncio.create_task(self._recover())
            self._recoveries.add(task)
            task.add_done_callback(self._recoveries.discard)
            await asyncio.sleep(self._agent.lease.total_seconds())

    async def _recover(self) -> None:
        try:
            answers = await self._agent.recover()
        except AgnoSQLError as error:
            _log.warning("interrupted runs could not be looked for: %s", error)
        else:
            for answer in answers:
                _log.info("run %s was interrupted and is answered now", answer.run_id)


async def _left(tasks: set[asyncio.Task[Any]], *, within_s: float) -> set[asyncio.Task[Any]]:
    """Return those of *tasks* that are not done within the time."""
    if not tasks:
        return set()
    _, left = await asyncio.wait(tasks, timeout=within_s)
    return left
