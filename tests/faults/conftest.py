"""A database behind a proxy, and a look at what the event loop has left after each test."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url

from agno_sql.store.engine import open_engine
from tests.faults.checks import through, until, without_leaks
from tests.support.postgres import PrivatePostgres
from tests.support.tcp import proxy_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.support.tcp import TcpProxy

# Where a task that failed unseen, or a connection that nobody gave back, is complained about.
_COMPLAIN = ("asyncio", "sqlalchemy.pool")


@pytest.fixture(autouse=True)
async def nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No task still runs, and nobody complains of one that failed or a connection that is lost."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield
    own = asyncio.current_task()
    with suppress(TimeoutError):
        await until(lambda: asyncio.all_tasks() == {own})
    assert asyncio.all_tasks() == {own}
    gc.collect()
    await asyncio.sleep(0)  # what the collector found is told by the loop
    assert not complaints
    logged = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name.startswith(_COMPLAIN) and record.levelno >= logging.WARNING
    ]
    assert not logged


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[TcpProxy]:
    server = make_url(postgres_url)
    async with proxy_to(server.host or "127.0.0.1", server.port or 5432) as running:
        yield running


@pytest.fixture
async def engine(postgres_url: str, proxy: TcpProxy) -> AsyncIterator[AsyncEngine]:
    """The engine of SQLMemory.open, to PostgreSQL through the proxy."""
    async with without_leaks(open_engine(through(proxy, postgres_url)), postgres_url) as opened:
        yield opened


@pytest.fixture(scope="package")
def own_postgres() -> Iterator[PrivatePostgres]:
    """A durable server that a test may kill and fill; it has to run again afterwards."""
    with ExitStack() as stack:
        server = PrivatePostgres(18, durable=True)
        stack.callback(server.destroy)
        server.start()
        yield server
