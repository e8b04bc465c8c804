"""What HTTP costs: CPU a turn of a server with an instant model, and of the library alone.

    python -m tests.server.cost [DATABASE_URL]

64 chats at once, each of its own user; the demo model answers at once. The client's CPU is not
counted.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import httpx

from agno_sql.agent.agent import Agent
from agno_sql.memory.sql import SQLMemory
from agno_sql.models.demo import DemoModel
from tests.support.http import server_process

USERS = 64
TURNS = 40


async def of_the_library(url: str) -> float:
    """Return the CPU of a turn, in ms."""
    async with SQLMemory.open(url, migrate=True) as memory:
        agent = Agent(name="assistant", model=DemoModel(), memory=memory)

        async def talk(user: str, turns: int) -> None:
            for turn in range(turns):
                await agent.run("What is my name?", user, run_id=f"{user}-{turns}-{turn}")

        await asyncio.gather(*(talk(f"lib-{n}", 2) for n in range(USERS)))
        before = time.process_time()
        await asyncio.gather(*(talk(f"lib-{n}", TURNS) for n in range(USERS)))
        return (time.process_time() - before) / (USERS * TURNS) * 1000


async def of_the_server(url: str) -> tuple[float, float]:
    """Return the CPU of a turn and its time from the client's side, in ms."""
    with server_process("--demo", "--database", url) as server:
        limits = httpx.Limits(max_connections=USERS, max_keepalive_connections=USERS)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:

            async def talk(user: str, turns: int) -> None:
                body = {"user_id": user, "message": "What is my name?"}
                for _ in range(turns):
                    (await client.post("/chat", json=body)).raise_for_status()

            await asyncio.gather(*(talk(f"http-{n}", 2) for n in range(USERS)))
            before, began = cpu_s(server.pid), time.perf_counter()
            await asyncio.gather(*(talk(f"http-{n}", TURNS) for n in range(USERS)))
            took = time.perf_counter() - began
            used = cpu_s(server.pid) - before
    return used / (USERS * TURNS) * 1000, took / TURNS * 1000


def cpu_s(pid: int) -> float:
    """Return the CPU that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/cost.db"
        alone = asyncio.run(of_the_library(url))
        served, took = asyncio.run(of_the_server(url))
    sys.stdout.write(
        f"{USERS} chats at once, {USERS * TURNS} turns: library {alone:.2f} ms CPU a turn, "
        f"server {served:.2f} ms, so HTTP {served - alone:.2f} ms; a turn took {took:.0f} ms\n"
    )


if __name__ == "__main__":
    main()
