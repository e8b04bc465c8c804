"""A person: one user, who asks, adds, goes away, asks again, until told to stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.crew import DIED
from tests.chaos.job import Job
from tests.chaos.script import CLEARED, MIXED, NOTES, SMALL, TALK, kind_of, tagged

if TYPE_CHECKING:
    from itertools import count
    from random import Random

    from tests.chaos.crew import Crew

# What a caller asks again after, by the same run_id. All else is how the run ended.
_AGAIN: Final = frozenset(
    {
        DIED,
        "impatient",
        "RunLostError",
        "ConversationBusyError",
        "StoreUnavailableError",
        "OutcomeUnknownError",
        "StoreError",
    }
)
_KINDS: Final = {TALK: 40, MIXED: 18, NOTES: 22, SMALL: 10, CLEARED: 10}
_PAUSE_S: Final = 0.3
_JOBS_A_SESSION: Final = 15  # then another one of its kind begins


class Person:
    """Does one thing after another, and some at once, through whichever worker there is.

    In sessions whose messages are deleted or pruned a run_id is handed out only once: it is known
    no longer than the messages of its run.
    """

    def __init__(
        self, user: str, crew: Crew, *, random: Random, numbers: count[int], patience_s: float
    ) -> None:
        self._user = user
        self._crew = crew
        self._random = random
        self._numbers = numbers
        self._patience_s = patience_s
        self._used = dict.fromkeys(_KINDS, 0)
        self._aside: set[asyncio.Task[Any]] = set()
        self.is_stopping = False

    async def live(self) -> None:
        try:
            while not self.is_stopping:
                await self._act()
            await asyncio.gather(*self._aside)
        finally:
            for task in self._aside:
                task.cancel()

    async def _act(self) -> None:
        (kind,) = self._random.choices(list(_KINDS), list(_KINDS.values()))
        session = f"{kind}-{self._used[kind] // _JOBS_A_SESSION}"
        self._used[kind] += 1
        if kind == NOTES or (kind == MIXED and self._chance(0.4)):
            await self._add(session)
        else:
            await self._ask(session)

    async def _add(self, session: str) -> None:
        count = self._random.choice([1, 1, 1, 3])
        contents = (f"note {next(self._numbers)}" for _ in range(count))
        await self._give(
            self._job(
                "add", session, contents=tuple(tagged(self._user, session, c) for c in contents)
            )
        )

    async def _ask(self, session: str) -> None:
        run_id = f"{self._user}.{session}.{next(self._numbers)}"
        job = self._job(
            "run",
            session,
            run_id=run_id,
            contents=(tagged(self._user, session, run_id),),
            is_streamed=self._chance(0.2),
            timeout_s=self._random.choice([0.05, 0.5]) if self._chance(0.04) else None,
            leaves_after_s=self._random.uniform(0, 0.3) if self._chance(0.04) else None,
        )
        kind = kind_of(session)
        may_repeat = kind in (TALK, MIXED)
        if self._chance(0.05):
            self._start(self._cancel(job))
        if kind == MIXED and self._chance(0.5):
            self._start(self._add(session))
        if kind == CLEARED and self._chance(0.4):
            self._start(self._later(self._job("clear", session)))
        if not may_repeat:
            await self._give(job)
            return
        if self._chance(0.08):
            self._start(self._give(self._again(job)))  # two clients, or one that is impatient
        if self._chance(0.05) and not self.is_stopping:
            self._start(self._ask(session))  # a rival
        await self._until_told(job)
        if self._chance(0.1):
            await self._give(self._again(job))

    async def _until_told(self, job: Job) -> None:
        """Ask again by the run_id until the run has ended."""
        while (await self._give(job, self._patience_s))["told"] in _AGAIN:
            await asyncio.sleep(self._random.uniform(0, _PAUSE_S))
            job = self._again(job)

    async def _cancel(self, job: Job) -> None:
        await self._later(self._job("cancel", job.session, run_id=job.run_id))

    async def _later(self, job: Job) -> None:
        await asyncio.sleep(self._random.uniform(0, 0.2))
        await self._give(job)

    async def _give(self, job: Job, patience_s: float | None = None) -> dict[str, Any]:
        worker = await self._crew.pick(self._random)
        told = worker.give(job)
        try:
            # What is told later is heard nevertheless.
            return await asyncio.wait_for(asyncio.shield(told), patience_s)
        except TimeoutError:
            return {"told": "impatient"}

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    def _job(self, kind: Any, session: str, **more: Any) -> Job:
        return Job(number=next(self._numbers), kind=kind, user=self._user, session=session, **more)

    def _again(self, job: Job) -> Job:
        return self._job("run", job.session, run_id=job.run_id, contents=job.contents)

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability
