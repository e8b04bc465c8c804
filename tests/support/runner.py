"""Runs under a test's control: held at a gate, watched, or in a process of their own.

A process of its own says what happens in it, a line each: "asked" at each model call, "working" in
its tool, "renewed" at each heartbeat, "overlap" if it was not alone, and how its run ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import make_url

from agno_sql.errors import AgnoSQLError
from agno_sql.memory.sql import SQLMemory
from tests.agent.models import DEADLINE_S, ScriptedModel, agent_of, asks, call
from tests.support.clock import FakeClock
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from agno_sql.message import Message

LONG: Final = timedelta(hours=1)
"""A lease that no test waits for."""

TABLES: Final = ("conversations", "messages", "runs")

Row = dict[str, Any]


class Gate:
    """A place where a model, a tool or a hook stays until the test lets it go on."""

    def __init__(self) -> None:
        self.entered, self.opened = asyncio.Event(), asyncio.Event()
        self.was_cancelled = False

    async def wait(self) -> str:
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return "let go"

    async def think(self, _: object) -> str:
        """The same for who is given something: a model, a hook."""
        return await self.wait()


class Alone:
    """Tells how many runs were at once in the places that it watches, the most of all time."""

    def __init__(self) -> None:
        self.most = 0
        self._inside: list[str] = []

    @asynccontextmanager
    async def at_work(self, who: str) -> AsyncIterator[None]:
        self._inside.append(who)
        self.most = max(self.most, len(set(self._inside)))
        try:
            for _ in range(5):  # whoever may come in too has the time for it
                await asyncio.sleep(0)
            yield
        finally:
            self._inside.remove(who)


class WatchedLog:
    """Passes everything on to a RunLog; what a test watches or breaks is overridden."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class WatchedMemory:
    """A memory whose runs go through a WatchedLog."""

    def __init__(self, memory: SQLMemory, log: WatchedLog) -> None:
        self._memory = memory
        self.run_log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


async def until(happened: Callable[[], bool]) -> None:
    """Return as soon as *happened* is true; TimeoutError if that takes too long."""
    async with asyncio.timeout(DEADLINE_S):
        while not happened():  # noqa: ASYNC110  (a database sets no event)
            await asyncio.sleep(0.005)


def later(by: timedelta = 2 * LONG) -> FakeClock:
    """Return a clock at which every lease of a LONG has expired."""
    return FakeClock(datetime.now(UTC) + by)


def rows(url: str, table: str) -> list[Row]:
    """Return all rows of *table*, read behind the library's back."""
    parsed = make_url(url)
    query = f"SELECT * FROM {table}"
    found: list[Row]
    if parsed.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(parsed.database))) as sqlite:
            sqlite.row_factory = sqlite3.Row
            found = [dict(row) for row in sqlite.execute(query)]
    else:
        plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, row_factory=dict_row) as postgres:
            found = postgres.execute(query).fetchall()
    return sorted(found, key=lambda row: [str(row.get(c)) for c in ("user_id", "run_id", "seq")])


def everything(url: str) -> dict[str, list[Row]]:
    """Return all rows of all tables, to compare what was stored before and after."""
    return {table: rows(url, table) for table in TABLES}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process does: *runs* runs of one user, with a tool call each if *has_tool*.

    With *waits* it stays in its tool, or else in its model call, until it gets an order. *alone*
    is a file that exists while it is in either: who finds it there says "overlap".
    """

    url: str
    user: str = "alice"
    run_id: str = "r-1"
    text: str = "go"
    lease_s: float = LONG.total_seconds()
    runs: int = 1
    has_tool: bool = True
    waits: bool = True
    alone: str | None = None


@dataclass(frozen=True)
class Ended:
    """How a process's last run ended: an error's class or "completed"."""

    how: str
    content: str
    cancelling: int


@dataclass
class Runner:
    """A process at work, seen from the test."""

    process: asyncio.subprocess.Process

    async def says(self, word: str) -> list[str]:
        """Return all lines that come before the next one that begins with *word*, and that one."""
        assert self.process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(3 * DEADLINE_S):
            while not lines or not lines[-1].startswith(word):
                line = await self.process.stdout.readline()
                assert line.endswith(b"\n"), f"the process ended before {word!r}: {lines}"
                lines.append(line.decode().rstrip("\n"))
        return lines

    async def ends(self) -> Ended:
        """Return how its run ended, when the process has."""
        lines = await self.says("ended ")
        async with asyncio.timeout(DEADLINE_S):
            assert await self.process.wait() == 0
        return Ended(**json.loads(lines[-1].removeprefix("ended ")))

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go on\n")

    def freeze(self) -> None:
        """Stop it as a suspended machine would, at whatever it does."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def runner(job: Job) -> AsyncIterator[Runner]:
    """Start a process that does *job*; it is killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.runner", json.dumps(asdict(job))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=CHECKOUT,
    )
    try:
        yield Runner(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def main(job: Job) -> None:
    """Do *job*, in the new process."""
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )

    class TellingLog(WatchedLog):
        async def renew(self, leases: Any) -> Any:
            renewal = await self._log.renew(leases)
            say("renewed")
            return renewal

    async def stay(word: str) -> None:
        say(word)
        with alone(job.alone):
            await (orders.readline() if job.waits else asyncio.sleep(0.002))

    async def work() -> str:
        await stay("working")
        return "worked"

    async def think(shown: Sequence[Message]) -> Any:
        if job.has_tool and shown[-1].role == "user":
            say("asked")
            return asks(call("work"))
        await (asyncio.sleep(0) if job.has_tool and job.waits else stay("asked"))
        return f"answer of {job.run_id}"

    async with SQLMemory.open(job.url, capacity=None) as opened:
        memory: Any = WatchedMemory(opened, TellingLog(opened.run_log))
        lease = timedelta(seconds=job.lease_s)
        agent = agent_of(ScriptedModel(then=think), memory, tools=[work], lease=lease)
        how = content = ""
        for number in range(job.runs):
            run_id = job.run_id if job.runs == 1 else f"{job.run_id}-{number}"
            try:
                output = await agent.run(job.text, job.user, run_id=run_id)
                how, content = "completed", output.content
            except AgnoSQLError as error:
                how, content = type(error).__name__, str(error)
    task = asyncio.current_task()
    assert task is not None
    say(f"ended {json.dumps(asdict(Ended(how, content, task.cancelling())))}")


@contextmanager
def alone(path: str | None) -> Iterator[None]:
    """Say "overlap" if the file is there, else make it as long as the block is in work."""
    if path is None:
        yield
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        say("overlap")
    try:
        yield
    finally:
        Path(path).unlink(missing_ok=True)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Job(**json.loads(sys.argv[1]))))
