"""A process of its own that adds messages and runs an agent, for storms on one SQLite file.

It says "ready", waits for a line, and writes "kind user content" for each message or answer that it
was given back.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.agent.models import ScriptedModel, agent_of, asks, call
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agno_sql.models.chat_model import ModelReply

SHARED_TALKS: Final = ("talk-0", "talk-1")
ADDS: Final = 10
SHARED_RUNS: Final = "runs"
RUNS_TOGETHER: Final = 2
RUNS_ALONE: Final = 3


@contextmanager
def stormer(url: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that storms the memory at *url*; its errors go where the test's go."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.storm", url, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def round_then_answer(messages: Sequence[Message]) -> ModelReply | str:
    """Call a tool twice in one round, then answer."""
    if messages[-1].role == "user":
        asked = messages[-1].content
        return asks(call("echo", "c1", text=asked), call("echo", "c2", text=asked))
    return f"answer to {messages[-1].content}"


async def echo(text: str) -> str:
    return text


async def storm(url: str, name: str) -> None:
    async with SQLMemory.open(url, capacity=None, migrate=False) as memory:
        agent = agent_of(
            ScriptedModel(then=round_then_answer),
            memory,
            tools=[echo],
            busy_timeout=timedelta(seconds=90),
        )
        say("ready")
        sys.stdin.readline()

        async def add_all(user: str) -> None:
            for n in range(ADDS):
                say(f"add {user} {(await memory.add(Message.user(f'{name}.{n}'), user)).content}")

        async def run_all(user: str, times: int) -> None:
            for n in range(times):
                answer = await agent.run(f"{name}.{n}", user)
                say(f"run {user} {answer.content.removeprefix('answer to ')}")

        await asyncio.gather(
            *(add_all(user) for user in SHARED_TALKS),
            run_all(SHARED_RUNS, RUNS_TOGETHER),
            run_all(f"runs-of-{name}", RUNS_ALONE),
        )


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(storm(*sys.argv[1:]))
