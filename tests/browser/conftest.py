"""A browser for all tests, and for each one its own profile, memory and server."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import pytest_asyncio

from agno_sql.memory.sql import SQLMemory
from tests.support.browser import Console, chromium
from tests.support.http import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from agno_sql.agent.agent import Agent


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run all tests of this folder in the event loop that their browser was started in."""
    item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


class Serve(Protocol):
    """Serves *agent* in the test's event loop until the test ends; returns where."""

    async def __call__(self, agent: Agent, **options: Any) -> str: ...


class OpenPage(Protocol):
    """Opens a page in a profile of its own; *options* are those of a browser's context."""

    async def __call__(self, **options: Any) -> Page: ...


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def memory(sqlite_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(sqlite_url) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def serve_until_the_end(agent: Agent, **options: Any) -> str:
            client = await stack.enter_async_context(served(agent, **options))
            return str(client.base_url)

        yield serve_until_the_end


@pytest_asyncio.fixture(loop_scope="session")
async def console() -> Console:
    """What went wrong in the browser; checked when the test has ended."""
    return Console()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(
    browser: Browser,
    console: Console,
    serve: Serve,  # a page is closed before its server is
) -> AsyncIterator[OpenPage]:
    async with AsyncExitStack() as stack:

        async def open_in_a_new_profile(**options: Any) -> Page:
            context = await stack.enter_async_context(await browser.new_context(**options))
            console.watch(context)
            return await context.new_page()

        yield open_in_a_new_profile
        console.check()


@pytest_asyncio.fixture(loop_scope="session")
async def page(open_page: OpenPage) -> Page:
    return await open_page()
