"""The process itself, whatever it serves."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from agno_sql.server import create_app, listen, serve
from tests.agent.models import ScriptedModel, agent_of
from tests.support.http import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from agno_sql.memory.sql import SQLMemory

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def serving(memory: SQLMemory) -> AsyncIterator[int]:
    """Serve until SIGTERM, as the command does; yields the port."""
    ready = asyncio.Event()
    app = create_app(agent_of(ScriptedModel(), memory))
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with listen("127.0.0.1", 0) as listening:
            task = asyncio.create_task(
                serve(app, listening, grace=timedelta(seconds=1), ready=ready.set)
            )
            async with asyncio.timeout(DEADLINE_S):
                await ready.wait()
            try:
                yield listening.getsockname()[1]
            finally:
                signal.raise_signal(signal.SIGTERM)
                async with asyncio.timeout(DEADLINE_S):
                    await task
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_an_idle_connection_is_kept_for_longer_than_a_proxy_keeps_it(
    sqlite_memory: SQLMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the event loop is put forward: nginx and load balancers close after 60 s."""
    forward_s = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + forward_s)
    async with serving(sqlite_memory) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(REQUEST)
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
            forward_s += 65
            await asyncio.sleep(0)
        forward_s += 65
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
