"""Processes of their own that run the shop's agent: one that is killed, one that recovers.

The first kills itself (SIGKILL) at one point of run r-1 of alice. The second says "ready", waits
for a line, recovers once, and writes "user answer" for each run that it completed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from agno_sql.memory.sql import SQLMemory
from agno_sql.store.engine import open_engine
from tests.agent.durable import QUESTION, Dying, Journal, shop_agent
from tests.support.postgres import CHECKOUT
from tests.support.statements import statements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agno_sql.memory.protocol import Memory
    from tests.agent.durable import Moment, Step, ToolName

DEADLINE_S = 60.0


def killed_at(
    url: str,
    journal: Journal,
    step: Step,
    moment: Moment,
    *,
    first: ToolName = "look_up",
    lease_s: float = 15.0,
) -> None:
    """Have a process killed at that point of its run; returns when it is dead."""
    process = subprocess.run(
        [
            *(sys.executable, "-m", "tests.support.crasher", "die"),
            *(url, str(journal.path), step, moment, first, str(lease_s)),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=DEADLINE_S,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr or process.returncode


@contextmanager
def recoverer(url: str, journal: Journal) -> Iterator[subprocess.Popen[str]]:
    """Start a process that recovers; what it reports is its output."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.crasher", "recover", url, str(journal.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def recovered_by(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    """Let all *processes* recover at one moment; return the runs that each reports."""
    for process in processes:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "ready\n", f"it ended with {process.wait()} before it was ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    reports = [process.communicate(timeout=DEADLINE_S)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return reports


async def die(words: list[str]) -> None:
    """Run until the point where ``killed_at`` wants this process to be killed."""
    url, journal, step, moment, first, lease_s = words
    engine = open_engine(url)
    dying = Dying(
        SQLMemory(engine),
        cast("Step", step),
        cast("Moment", moment),
        first=cast("ToolName", first),
        before_commit=lambda: stack.enter_context(statements(kill_at_commit)),
        die=kill,
    )
    agent = shop_agent(
        cast("Memory", dying), Journal(Path(journal)), lease=timedelta(seconds=float(lease_s))
    )
    with ExitStack() as stack:
        await agent.run(QUESTION, "alice", run_id="r-1")


def kill_at_commit(statement: str) -> None:
    """Kill this process when a transaction has written everything and is to be committed.

    On PostgreSQL, where one statement does both, that is before it.
    """
    if statement == "COMMIT" or statement.startswith("WITH given"):
        kill()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def recover(words: list[str]) -> None:
    """Do what ``recoverer`` asks for."""
    url, journal = words
    async with SQLMemory.open(url, migrate=False) as memory:
        # Long: on a busy machine this process may stand still, and each run is recovered once.
        agent = shop_agent(memory, Journal(Path(journal)), lease=timedelta(minutes=1))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for output in await agent.recover():
            sys.stdout.write(f"{output.user_id} {output.content}\n")


if __name__ == "__main__":
    asyncio.run({"die": die, "recover": recover}[sys.argv[1]](sys.argv[2:]))
