"""What HTTP costs: CPU a turn of a server with an instant model, and of the library alone.

    python -m tests.server.cost --database sqlite
    python -m tests.server.cost --database postgresql

Both do the same work, each in a process and on a database of its own: 64 users talk at once, in one
conversation each, with run_ids of theirs; the demo model answers at once. The clients of the server
are in this process, whose CPU is not counted. The two take turns, so a machine that gets slower
does so for both; the medians are told last.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import httpx

from agno_sql.agent.agent import Agent
from agno_sql.memory.sql import SQLMemory
from agno_sql.models.demo import DemoModel
from tests.support.http import DEADLINE_S, server_process
from tests.support.postgres import Databases, PrivatePostgres

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

USERS: Final = 64
TURNS_BEFORE: Final = 2
TURNS: Final = 20
REPETITIONS: Final = 5
MESSAGE: Final = "What is my name?"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.server.cost")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], required=True)
    database = parser.parse_args().database
    say(f"{USERS} chats at once on {database}, {TURNS} turns each: ms CPU a turn")
    say("library   server     HTTP")
    measured = []
    with databases(database) as fresh:
        for _ in range(REPETITIONS):
            with fresh() as url:
                library = of_the_library(url)
            with fresh() as url:
                server = asyncio.run(of_the_server(url))
            measured.append((library, server, server - library))
            say_figures(measured[-1])
    medians = [median(column) for column in zip(*measured, strict=True)]
    say_figures(medians, f"  medians; the server takes {medians[1] / medians[0]:.1f} times as much")


def say_figures(figures: tuple[float, ...] | list[float], more: str = "") -> None:
    say("  ".join(f"{figure:7.2f}" for figure in figures) + more)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def databases(kind: str) -> Iterator[Callable[[], AbstractContextManager[str]]]:
    """Yield what makes new databases; both kinds are durable."""
    if kind == "sqlite":
        yield sqlite_file
        return
    server = PrivatePostgres(18, durable=True)
    try:
        server.start()
        maker = Databases(server.url)
        yield maker.fresh
        maker.close()
    finally:
        server.destroy()


@contextmanager
def sqlite_file() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/cost.db"


def of_the_library(url: str) -> float:
    """Return the CPU of a turn in a new process without HTTP, in ms."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(run_the_library, url).result()


def run_the_library(url: str) -> float:
    async def talk_to_the_agent() -> float:
        async with SQLMemory.open(url) as memory:
            agent = Agent(name="assistant", model=DemoModel(), memory=memory)

            async def turn(user: int, run_id: str) -> None:
                await agent.run(MESSAGE, f"user-{user}", run_id=run_id)

            return await ms_a_turn(turn, time.process_time)

    return asyncio.run(talk_to_the_agent())


async def of_the_server(url: str) -> float:
    """Return the CPU of a turn in a new server, in ms."""
    context = ssl.create_default_context()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(server_process("--demo", "--database", url))
        # A connection for each user: a pool that they share puts what waits on few of its
        # connections, so that less than all would talk at once.
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_S, verify=context)
            )
            for _ in range(USERS)
        ]

        async def turn(user: int, run_id: str) -> None:
            body = {"user_id": f"user-{user}", "message": MESSAGE, "run_id": run_id}
            (await clients[user].post("/chat", json=body)).raise_for_status()

        return await ms_a_turn(turn, lambda: cpu_s(server.pid))


async def ms_a_turn(
    turn: Callable[[int, str], Awaitable[None]], used_s: Callable[[], float]
) -> float:
    """Let all users talk at once; return what *used_s* tells of a turn, in ms."""

    async def talk(first: int, after: int) -> None:
        async def one(user: int) -> None:
            for number in range(first, after):
                await turn(user, f"run-{number}")

        await asyncio.gather(*map(one, range(USERS)))

    await talk(0, TURNS_BEFORE)  # connections are made, code is loaded
    before = used_s()
    await talk(TURNS_BEFORE, TURNS_BEFORE + TURNS)
    return (used_s() - before) / (USERS * TURNS) * 1000


def cpu_s(pid: int) -> float:
    """Return the CPU that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
