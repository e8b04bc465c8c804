"""A process of its own that writes into a memory, for tests of many processes.

It says "ready", waits for a line, and writes "user seq content" for each message once its add
has returned.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

# When a writer says that it is ready: before it opens the memory, or after.
Start = Literal["unopened", "opened"]


@dataclass(frozen=True)
class Acknowledged:
    """A message that an add has returned."""

    user: str
    seq: int
    content: str


@dataclass(frozen=True)
class Writer:
    """A running writer, seen from the test."""

    process: subprocess.Popen[str]
    reports: IO[str]
    orders: IO[str]

    def wait_until_ready(self) -> None:
        line = self.reports.readline()
        assert line == "ready\n", f"the writer ended with {self.process.wait()} before it was ready"

    def go(self) -> None:
        self.orders.write("go\n")
        self.orders.flush()

    def acknowledged(self) -> Iterator[Acknowledged]:
        """Yield what the writer reports until it ends; a line that was cut off is no report."""
        for line in self.reports:
            if line.endswith("\n"):
                user, seq, content = line.split()
                yield Acknowledged(user, int(seq), content)


@contextmanager
def writer(
    url: str,
    *,
    name: str,
    users: int,
    messages: int,
    start: Start = "opened",
    migrate: str = "None",
    capacity: int | None = None,
    tasks: int = 1,
) -> Iterator[Writer]:
    """Start a process that adds *messages* for each of *users* users, all users at once.

    Each user's are added by so many *tasks* at once.
    """
    words = [url, name, str(users), str(messages), start, migrate, str(capacity), str(tasks)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.writer", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Writer(process, process.stdout, process.stdin)
        finally:
            process.kill()


async def main(words: list[str]) -> None:
    """Do what ``writer`` asks for, in the new process."""
    url, name, users, messages, start, migrate, most, tasks = words
    if start == "unopened":
        wait_for_go()
    allowed = {"None": None, "True": True, "False": False}[migrate]
    capacity = None if most == "None" else int(most)
    async with SQLMemory.open(url, capacity=capacity, migrate=allowed) as memory:
        if start == "opened":
            wait_for_go()

        async def write(user: str, first: int) -> None:
            for n in range(first, int(messages), int(tasks)):
                stored = await memory.add(Message.user(f"{name}.{n}"), user)
                sys.stdout.write(f"{user} {stored.seq} {stored.content}\n")
                sys.stdout.flush()

        await asyncio.gather(
            *(write(f"user-{n}", first) for n in range(int(users)) for first in range(int(tasks)))
        )


def wait_for_go() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
