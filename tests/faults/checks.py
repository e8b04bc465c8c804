"""What has to be true after every fault: nothing lost, doubled, out of order or left open."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Final

import psycopg
from sqlalchemy import QueuePool, make_url

from agno_sql.exchange import open_calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from agno_sql.message import Message
    from tests.support.tcp import TcpProxy

DEADLINE_S: Final = 20.0


async def until(condition: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
    """Return when *condition* is true; fail if that takes longer than *within_s*."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  (what others do sets no event of ours)
            await asyncio.sleep(0.005)


def sync_url(url: str) -> str:
    """Return *url* as psycopg takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def through(proxy: TcpProxy, url: str) -> str:
    """Return *url* with the proxy in front of the server."""
    parsed = make_url(url).set(host="127.0.0.1", port=proxy.port)
    return parsed.render_as_string(hide_password=False)


def connections(url: str) -> int:
    """Return how many connections the server has to the database of *url*, but for our own."""
    with psycopg.connect(sync_url(url), autocommit=True) as admin:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        ).fetchone()
    assert row is not None
    return int(row[0])


@asynccontextmanager
async def without_leaks(engine: AsyncEngine, url: str) -> AsyncIterator[AsyncEngine]:
    """Yield *engine*, then require that neither it nor the server at *url* has a lost connection.

    Nobody else may use the database of *url* at the end.
    """
    try:
        yield engine
        pool = engine.pool
        assert isinstance(pool, QueuePool)
        # A connection that was given up on may take seconds: the driver tries to close it nicely.
        await until(lambda: pool.checkedout() == 0)
        if engine.dialect.name == "postgresql":
            # Fewer are right: the pool does not know yet which of its connections were cut.
            await until(lambda: connections(url) <= pool.checkedin())
    finally:
        await engine.dispose()
    if engine.dialect.name == "postgresql":
        await until(lambda: connections(url) == 0)


def assert_numbered(stored: Sequence[Message]) -> None:
    """Require that *stored*, a conversation from its beginning, has no gap and nothing twice."""
    assert [message.seq for message in stored] == list(range(1, len(stored) + 1))


def runs_in(stored: Sequence[Message]) -> dict[str, list[Message]]:
    """Return the runs of a conversation in their order; require each step once and in order.

    The order of a round's results is that in which they were stored, so steps are sorted within
    one. No two runs may interleave.
    """
    runs: dict[str, list[Message]] = {}
    own = [message for message in stored if message.run_step is not None]
    for run_id, messages in groupby(own, key=lambda message: message.run_id):
        assert run_id is not None
        assert run_id not in runs, f"another run's messages are between those of {run_id}"
        turn = list(messages)
        results_moved = sorted(turn, key=lambda message: message.run_step or 0)
        assert [message.run_step for message in results_moved] == list(range(len(turn)))
        asked = [message.seq for message in results_moved if message.role != "tool"]
        assert asked == sorted(asked, key=lambda seq: seq or 0)
        runs[run_id] = results_moved
    return runs


def assert_answered(turn: Sequence[Message]) -> None:
    """Require that *turn*, the messages of a run by step, is a whole one with its answer."""
    assert turn[0].role == "user"
    assert turn[-1].role == "assistant"
    assert not turn[-1].tool_calls
    assert not open_calls(turn)
