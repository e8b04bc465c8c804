"""The crew: the worker processes, as the driver starts, feeds, freezes and kills them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.fault import EXIT, Fault
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from tests.chaos.job import Job
    from tests.chaos.journal import Journal

DIED: Final = "died"
_LONGEST_RECORD: Final = 2**20


class Worker:
    """One worker process; everything it writes is heard, up to its last whole line."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, journal: Journal) -> None:
        self.name = name
        self.is_ready = False
        self.may_die = False
        self.is_gone = False
        self._heard = asyncio.Event()
        self._process = process
        self._journal = journal
        self._pending: dict[int, tuple[Job, asyncio.Future[dict[str, Any]]]] = {}

    def give(self, job: Job) -> asyncio.Future[dict[str, Any]]:
        """Hand *job* to it; return what will hold what is told of the job, or that it died."""
        assert self._process.stdin is not None
        told = asyncio.get_running_loop().create_future()
        self._pending[job.number] = (job, told)
        self._journal.issue(job, self.name)
        self._process.stdin.write(job.line())
        return told

    async def listen(self) -> int:
        """Take its records until it ends; return its exit code."""
        assert self._process.stdout is not None
        while (line := await self._process.stdout.readline()).endswith(b"\n"):
            record = json.loads(line)
            self._journal.take(record, self.name)
            self.is_ready = self.is_ready or "ready" in record
            if "number" in record:
                _, told = self._pending.pop(record["number"])
                told.set_result(record)
            self._heard.set()
        code = await self._process.wait()
        self.is_gone = True
        self._heard.set()
        for job, told in self._pending.values():
            self._journal.died(job, self.name)
            told.set_result({"told": DIED})
        self._pending.clear()
        return code

    async def wait_until_heard(self) -> None:
        """Wait for the next record, or the end."""
        if not self.is_gone:
            self._heard.clear()
            await self._heard.wait()

    def signal(self, number: signal.Signals) -> None:
        if not self.is_gone:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        self.may_die = True
        self.signal(signal.SIGKILL)

    def finish(self) -> None:
        """Have it end when its jobs are done."""
        self.may_die = True
        assert self._process.stdin is not None
        self._process.stdin.close()


class Crew:
    """All workers, dead and alive."""

    def __init__(self, url: str, *, lease_s: float, journal: Journal, folder: Path) -> None:
        self._words = [url, str(lease_s)]
        self._journal = journal
        self._folder = folder
        self._workers: list[Worker] = []
        self._listening: set[asyncio.Task[None]] = set()
        self._hired = 0
        self._changed = asyncio.Condition()

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.is_ready and not worker.may_die]

    @property
    def working(self) -> int:
        """How many are at work, or will be as soon as they have started."""
        return sum(not worker.may_die and not worker.is_gone for worker in self._workers)

    async def hire(self) -> Worker:
        self._hired += 1
        name = f"w{self._hired}"
        with (self._folder / f"{name}.err").open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos.worker",
                *self._words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=CHECKOUT,
                limit=_LONGEST_RECORD,
            )
        worker = Worker(name, process, self._journal)
        self._workers.append(worker)
        task = asyncio.create_task(self._listen(worker))
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)
        return worker

    async def wait_for(self, count: int) -> None:
        """Wait until at least *count* workers take jobs."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.alive) >= count)

    async def pick(self, random: Random) -> Worker:
        """Return any worker that takes jobs, a frozen one too; wait until there is one."""
        await self.wait_for(1)
        return random.choice(self.alive)

    async def wait_until_ready(self, worker: Worker) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: worker.is_ready or worker.is_gone)

    async def wait_until_gone(self) -> None:
        """Wait until all processes have ended and everything they wrote was heard."""
        await asyncio.gather(*self._listening)

    async def close(self) -> None:
        """Kill whoever is left."""
        for worker in self._workers:
            worker.kill()
        await asyncio.gather(*self._listening, return_exceptions=True)

    async def _listen(self, worker: Worker) -> None:
        announcing = asyncio.create_task(self._announce(worker))
        code = await worker.listen()
        await announcing
        errors = (self._folder / f"{worker.name}.err").read_text(errors="replace").strip()
        if errors:
            self._journal.logged[f"stderr: {errors.splitlines()[-1][:150]}"] += 1
        if not worker.may_die or code not in (0, -signal.SIGKILL):
            self._journal.faults.append(
                Fault(EXIT, f"{worker.name} ended with {code}:\n{errors[-3000:]}")
            )
        async with self._changed:
            self._workers.remove(worker)
            self._changed.notify_all()

    async def _announce(self, worker: Worker) -> None:
        while not (worker.is_ready or worker.is_gone):
            await worker.wait_until_heard()
        async with self._changed:
            self._changed.notify_all()
