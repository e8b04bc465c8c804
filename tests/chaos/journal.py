"""The journal: all that the workers told, with when the driver heard of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.fault import CROSS_TENANT, Fault

if TYPE_CHECKING:
    from tests.chaos.job import Job

RunKey = tuple[str, str, str]

_LONGEST_TIMELINE: Final = 60


@dataclass(frozen=True)
class Issued:
    job: Job
    at: float
    worker: str


@dataclass(frozen=True)
class Output:
    """An answer that a caller was given, by *how*; its messages are seq, step, role, content."""

    run: RunKey
    content: str
    messages: tuple[tuple[int, int, str, str], ...]
    at: float
    how: str


@dataclass(frozen=True)
class Added:
    job: Job
    seqs: tuple[int, ...]
    at: float


@dataclass(frozen=True)
class Refused:
    """A job that ended with an error; of one whose worker died it is ``died``."""

    job: Job
    error: str
    text: str
    at: float


@dataclass
class Journal:
    """What happened, in the order in which it was heard of."""

    issued: dict[int, Issued] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    added: list[Added] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    begun: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    runs_of_keys: dict[str, RunKey] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    logged: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    mischief: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    _heard: int = 0
    _waiters: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)
    _lines: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _began_at: float = field(default_factory=time.monotonic)

    def issue(self, job: Job, worker: str) -> None:
        at = time.monotonic()
        self.issued[job.number] = Issued(job, at, worker)
        if job.run_id:
            self._note(job.run_id, f"{worker} is given job {job.number}: {job.kind}", at)

    def take(self, record: dict[str, Any], worker: str) -> None:
        """Keep a *record* that *worker* wrote."""
        at = time.monotonic()
        self._count_one()
        if "tool" in record:
            self._take_tool(record, worker, at)
        elif "told" in record:
            self._take_told(record, worker, at)
        elif "recovered" in record:
            self.told["output of recover"] += 1
            self._take_output(record["recovered"], at, f"{worker}, recover")
        elif "fault" in record:
            self.faults.append(Fault(record["fault"], f"{worker}: {record['what']}"))
        elif "recovery" in record:
            self.errors[f"{record['recovery']} by recover"] += 1
        elif "log" in record:
            self.logged[record["log"]] += 1
            self.examples.setdefault(record["log"], record["text"])

    async def wait_until_heard(self, records: int) -> None:
        """Wait until that many more records were heard."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((self._heard + records, waiter))
        try:
            await waiter
        finally:
            self._waiters = [other for other in self._waiters if other[1] is not waiter]

    def died(self, job: Job, worker: str) -> None:
        """Note that the *worker* of a job died before it told how the job ended."""
        at = time.monotonic()
        self.refused.append(Refused(job, "died", "", at))
        self._note(job.run_id, f"{worker} died before it told of job {job.number}", at)

    def event(self, what: str, detail: str = "") -> None:
        """Count one act of mischief."""
        self.mischief[what] += 1
        self._note("", f"{what} {detail}", time.monotonic())

    def timeline(self, run_id: str) -> list[str]:
        """Return what was heard of a run, and what was done to the workers meanwhile."""
        lines = sorted([*self._lines[run_id], *self._lines[""]], key=lambda line: float(line[:9]))
        own = set(self._lines[run_id])
        places = [n for n, line in enumerate(lines) if line in own]
        if not places:
            return []
        near = lines[max(0, places[0] - 1) : places[-1] + 2]
        return near[:_LONGEST_TIMELINE]

    def _count_one(self) -> None:
        self._heard += 1
        for count, waiter in self._waiters:
            if count <= self._heard and not waiter.done():
                waiter.set_result(None)

    def _note(self, run_id: str, what: str, at: float) -> None:
        self._lines[run_id].append(f"{at - self._began_at:9.3f} {what}")

    def _take_tool(self, record: dict[str, Any], worker: str, at: float) -> None:
        user, session, run_id = record["run"]
        key = record["key"]
        if record["phase"] == "begun":
            self.begun[key].append(record["tool"])
            self.runs_of_keys[key] = (user, session, run_id)
        self._note(run_id, f"{worker}: {record['tool']} {key[:8]} {record['phase']}", at)

    def _take_output(self, output: dict[str, Any], at: float, how: str) -> None:
        user, session, run_id = output["run"]
        messages = tuple((seq, step, role, text) for seq, step, role, text in output["messages"])
        self.outputs.append(Output((user, session, run_id), output["content"], messages, at, how))
        self._note(run_id, f"{how}: answered {output['content'][-40:]}", at)

    def _take_told(self, record: dict[str, Any], worker: str, at: float) -> None:
        job, told = self.issued[record["number"]].job, record["told"]
        if told == "output":
            self._take_output(record["output"], at, f"{worker}, job {job.number}")
            if (*record["output"]["run"],) != job.run_key:
                what = f"{job.run_key} was answered {record}"
                self.faults.append(Fault(CROSS_TENANT, what, job.run_id))
        elif told == "added":
            self.added.append(Added(job, tuple(record["seqs"]), at))
        elif "text" in record:
            self.refused.append(Refused(job, told, record["text"], at))
            self.errors[told] += 1
            self.examples.setdefault(told, record["text"])
            self._note(job.run_id, f"{worker}, job {job.number}: {told} {record['text']}", at)
        self.told[told] += 1
