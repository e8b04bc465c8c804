"""The mischief: who is killed and frozen, and when the database goes away."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

    from tests.chaos.crew import Crew, Worker
    from tests.chaos.journal import Journal
    from tests.chaos.site import Site

KILLED, FROZEN, THAWED, STARTED = "killed", "frozen", "thawed", "started"
SERVER_KILLED, SERVER_STARTED = "server killed", "server started"

# How many records are waited for until something happens again, and how long at most: a machine
# that is slow, or busy with something else, must get something done in between.
_RECORDS: Final = (20, 200)
_AT_MOST_S: Final = 8.0
_FIRST_SERVER_RECORDS: Final = (150, 250)
_SERVER_RECORDS: Final = (250, 900)
_SERVER_AT_MOST_S: Final = 20.0
_LONGEST_WAIT_S: Final = 1.0


class Mischief:
    """Goes on until it is cancelled; then all workers are thawed and the server runs."""

    def __init__(
        self, crew: Crew, site: Site, *, random: Random, journal: Journal, lease_s: float
    ) -> None:
        self._crew = crew
        self._site = site
        self._random = random
        self._journal = journal
        self._lease_s = lease_s
        self._frozen: set[Worker] = set()

    async def go_on(self, processes: int) -> None:
        """Keep *processes* workers, and kill and freeze them."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._trouble_workers(processes))
                if self._site.can_be_killed:
                    group.create_task(self._trouble_server())
        finally:
            for worker in self._frozen:
                self._thaw(worker)

    async def repair(self) -> None:
        """Have the server run, which may have been killed; to be called after the end."""
        await self._site.settle()
        if not self._site.is_up:
            await self._start_server()

    async def _trouble_workers(self, processes: int) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._let_them_work(_RECORDS, _AT_MOST_S)
                await self._crew.wait_for(min(2, processes))
                victim = await self._crew.pick(self._random)
                if self._random.random() < 0.5:
                    await self._until_it_tells_something(victim)
                if victim.is_gone or victim.may_die:
                    pass
                elif self._random.random() < 0.7 or len(self._frozen) >= processes - 1:
                    self._journal.event(KILLED, victim.name)
                    victim.kill()
                elif victim not in self._frozen:
                    group.create_task(self._freeze(victim))
                for _ in range(processes - self._crew.working):
                    worker = await self._crew.hire()
                    self._journal.event(STARTED, worker.name)

    async def _let_them_work(self, records: tuple[int, int], at_most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._journal.wait_until_heard(self._random.randint(*records))

    async def _until_it_tells_something(self, victim: Worker) -> None:
        """Wait for the victim's next record, which it has written just before or after a step."""
        with suppress(TimeoutError):  # it is frozen, or has nothing to do
            async with asyncio.timeout(_LONGEST_WAIT_S):
                await victim.wait_until_heard()

    async def _freeze(self, victim: Worker) -> None:
        self._frozen.add(victim)
        self._journal.event(FROZEN, victim.name)
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(self._lease_s * self._random.uniform(0.5, 2.0))
        self._thaw(victim)
        self._frozen.discard(victim)

    def _thaw(self, victim: Worker) -> None:
        self._journal.event(THAWED, victim.name)
        victim.signal(signal.SIGCONT)

    async def _trouble_server(self) -> None:
        records = _FIRST_SERVER_RECORDS
        while True:
            await self._let_them_work(records, _SERVER_AT_MOST_S)
            records = _SERVER_RECORDS
            self._journal.event(SERVER_KILLED)
            await self._site.kill()
            # Away for an instant, or for longer than a lease.
            await asyncio.sleep(self._random.choice([0.0, 0.3, self._lease_s * 1.5]))
            await self._start_server()

    async def _start_server(self) -> None:
        await self._site.start_again()
        self._journal.event(SERVER_STARTED)
