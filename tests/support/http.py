"""The server under test: on a real socket in the test's event loop, or as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx
import uvicorn

from agno_sql.server import create_app, listen
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from starlette.types import ASGIApp

    from agno_sql.agent.agent import Agent

DEADLINE_S: Final = 60.0
_READY: Final = re.compile(r"is served at (http://\S+?:\d+)")


class _PromptServer(uvicorn.Server):
    """Stops when told so, where uvicorn itself looks ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready, self.stopping = asyncio.Event(), asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        self.ready.set()
        await self.stopping.wait()


def served(agent: Agent, **options: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """Serve *agent* as ``served_app`` does; *options* are those of ``create_app``."""
    return served_app(create_app(agent, **options))


@asynccontextmanager
async def served_app(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Serve *app* on 127.0.0.1 and yield a client; afterwards no task may be left."""
    before = asyncio.all_tasks()
    listening = listen("127.0.0.1", 0)
    server = _PromptServer(
        uvicorn.Config(app, lifespan="on", ws="none", access_log=False, log_config=None)
    )
    task = asyncio.create_task(server.serve(sockets=[listening]))
    async with asyncio.timeout(DEADLINE_S):
        await server.ready.wait()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    try:
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, limits=limits) as client:
            yield client
    finally:
        server.stopping.set()
        async with asyncio.timeout(DEADLINE_S):
            await task
    # sse-starlette, which streams A2A, keeps a task of its own for each event loop.
    others = re.compile("TcpProxy|_shutdown_watcher")
    left = {task for task in asyncio.all_tasks() - before if not others.search(repr(task))}
    left.discard(asyncio.current_task())
    assert not left, f"the server left tasks behind: {left}"


class ServerProcess:
    """``agno-sql serve`` as a process of its own; what it logs is read as it comes."""

    def __init__(self, arguments: list[str], env: Mapping[str, str]) -> None:
        kept = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agno_sql", "serve", "--port", "0", *arguments],
            cwd=CHECKOUT,
            env={name: os.environ[name] for name in kept if name in os.environ} | dict(env),
            stderr=subprocess.PIPE,
            text=True,
        )
        self._log: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.logged(_READY)[1]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has logged so far."""
        with self._changed:
            return "".join(self._log)

    def logged(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Return when *pattern* is in the log."""
        with self._changed:
            self._changed.wait_for(
                lambda: pattern.search("".join(self._log)) or not self._reader.is_alive(),
                DEADLINE_S,
            )
        found = pattern.search(self.log)
        assert found, f"{pattern.pattern} was not logged:\n{self.log}"
        return found

    def client(self) -> httpx.Client:
        """Return a client of it."""
        return httpx.Client(base_url=self.url, timeout=DEADLINE_S)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def ended(self) -> int:
        """Return its exit code once it has ended."""
        return self._process.wait(DEADLINE_S)

    def kill(self) -> None:
        """Kill it, as a crash does."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Leave nothing of it behind."""
        self.kill()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._changed:
                self._log.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


@contextmanager
def server_process(*arguments: str | Path, **env: str) -> Iterator[ServerProcess]:
    """Start a server and return when it is ready; it is gone at the end."""
    process = ServerProcess([str(argument) for argument in arguments], env)
    try:
        yield process
    finally:
        process.close()


def sse_events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream, each with its name."""
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    return [(name, json.loads(data)) for name, data in found]
