"""A storm: the mischief and the load, then the repair, and the verdict on what is stored."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from tests.chaos.crew import Crew
from tests.chaos.fault import STUCK, Fault
from tests.chaos.job import Job
from tests.chaos.journal import Journal
from tests.chaos.mischief import KILLED, Mischief
from tests.chaos.person import Person
from tests.chaos.report import progress
from tests.chaos.site import DatabaseName, Site
from tests.chaos.stored import Stored, count_running, read_stored

if TYPE_CHECKING:
    from collections.abc import Callable

_REPAIRED_WITHIN_S: Final = 90.0
_PROGRESS_EVERY_S: Final = 3.0
_POLL_S: Final = 0.2


@dataclass(frozen=True, kw_only=True)
class Options:
    database: DatabaseName
    seconds: float
    seed: int
    processes: int = 3
    users: int = 40
    lease_s: float = 1.5


@dataclass(frozen=True)
class Aftermath:
    """What was heard and what is stored, after everybody has stopped."""

    options: Options
    journal: Journal
    stored: Stored


async def storm(options: Options, say: Callable[[str], None]) -> Aftermath:
    """Let it storm; *say* is told how far it is."""
    journal = Journal()
    with TemporaryDirectory(prefix="agno-sql-chaos-", ignore_cleanup_errors=True) as folder:
        async with Site.open(options.database, Path(folder)) as site:
            crew = Crew(site.url, lease_s=options.lease_s, journal=journal, folder=Path(folder))
            try:
                await _Storm(options, site, crew, journal, say).rage()
            finally:
                await crew.close()
            return Aftermath(options, journal, await asyncio.to_thread(read_stored, site.url))


class _Storm:
    def __init__(
        self,
        options: Options,
        site: Site,
        crew: Crew,
        journal: Journal,
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._site = site
        self._crew = crew
        self._journal = journal
        self._say = say
        self._numbers = count(1)

    async def rage(self) -> None:
        options = self._options
        workers = [await self._crew.hire() for _ in range(options.processes)]
        for worker in workers:
            await self._crew.wait_until_ready(worker)
        people = [
            Person(
                f"u{n}",
                self._crew,
                random=Random(f"{options.seed}/{n}"),
                numbers=self._numbers,
                patience_s=options.lease_s * 3,
            )
            for n in range(options.users)
        ]
        lives = [asyncio.create_task(person.live()) for person in people]
        try:
            await self._trouble(lives)
            for person in people:
                person.is_stopping = True
            await self._repair(lives)
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)

    async def _trouble(self, lives: list[asyncio.Task[None]]) -> None:
        """Make mischief while people live."""
        options = self._options
        mischief = Mischief(
            self._crew,
            self._site,
            random=Random(f"{options.seed}/mischief"),
            journal=self._journal,
            lease_s=options.lease_s,
        )
        making = asyncio.create_task(mischief.go_on(options.processes))
        began_at = time.monotonic()
        try:
            while (passed := time.monotonic() - began_at) < options.seconds:
                self._say(progress(self._journal, passed))
                pause = min(_PROGRESS_EVERY_S, options.seconds - passed)
                done, _ = await asyncio.wait(
                    [making, *lives], timeout=pause, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
                    raise RuntimeError(f"it ended early: {task}")
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
        await mischief.repair()

    async def _repair(self, lives: list[asyncio.Task[None]]) -> None:
        """Kill everybody in the middle of their work; one worker clears up what they left."""
        self._say("all workers are killed, one clears up")
        for worker in self._crew.alive:
            self._journal.event(KILLED, worker.name)
        await self._crew.close()
        last = await self._crew.hire()
        await self._crew.wait_until_ready(last)
        give_up_at = time.monotonic() + _REPAIRED_WITHIN_S
        done, pending = await asyncio.wait(lives, timeout=_REPAIRED_WITHIN_S)
        for life in done:
            life.result()
        if pending:
            self._journal.faults.append(Fault(STUCK, f"{len(pending)} users still wait for a run"))
        while await self._is_running() and time.monotonic() < give_up_at:
            await last.give(Job(number=next(self._numbers), kind="recover"))
            await asyncio.sleep(_POLL_S)
        last.finish()
        await self._crew.wait_until_gone()

    async def _is_running(self) -> bool:
        return await asyncio.to_thread(count_running, self._site.url) > 0
