"""Agents that server processes of the tests serve, by name: ``tests.server.agents:shop``."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from agno_sql import Agent, InMemory, OpenAIChat, SQLMemory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

no_agent = "a string"


def sleep_for_ever() -> str:
    """Block the thread, as a tool may that waits for another service."""
    time.sleep(3600)
    return "awake"


def look_up(order: int) -> str:
    """Tell where an order is."""
    return f"order {order} is on its way"


@asynccontextmanager
async def shop() -> AsyncIterator[Agent]:
    """An agent of the model at OPENAI_BASE_URL, with a short lease."""
    async with SQLMemory.open(os.environ["AGNO_SQL_DATABASE_URL"]) as memory:
        yield Agent(
            name="shop",
            model=OpenAIChat("scripted", api_key="test", max_retries=0),
            memory=memory,
            tools=[sleep_for_ever, look_up],
            lease=timedelta(seconds=float(os.environ.get("LEASE_S", "1"))),
        )


@asynccontextmanager
async def nobody() -> AsyncIterator[str]:
    """Open what is no agent."""
    yield "nobody"


@asynccontextmanager
async def never() -> AsyncIterator[Agent]:
    """Wait for a database that never answers."""
    sys.stderr.write("opening\n")
    sys.stderr.flush()
    await asyncio.Event().wait()
    yield Agent(name="never", model=OpenAIChat("none"), memory=InMemory())
