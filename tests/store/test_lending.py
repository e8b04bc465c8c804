"""Connections that stay at hand: who gets them again, and when the pool does."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import Pool, QueuePool, event

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.store.engine import open_engine
from agno_sql.store.lending import _LOOK_EACH_S, Lender
from tests.faults.checks import connections, sync_url, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine


class Lent:
    """A lender on an engine of its own, and what its pool gave out."""

    def __init__(self, engine: AsyncEngine) -> None:
        assert isinstance(engine.pool, QueuePool)
        self.engine = engine
        self.pool = engine.pool
        self.lender = Lender(engine)
        self.checkouts = 0
        event.listen(engine.sync_engine, "checkout", self._count)

    def _count(self, *_: object) -> None:
        self.checkouts += 1

    async def driver(self) -> Any:
        """Return the connection that is lent next, when it has answered."""
        return await self.lender.lend(answering)

    async def at_once(self, count: int) -> set[Any]:
        """Return what *count* tasks are lent while none of them gives it back."""
        all_have_one = asyncio.Barrier(count)

        async def hold(driver: Any) -> Any:
            await all_have_one.wait()
            return driver

        return set(await asyncio.gather(*(self.lender.lend(hold) for _ in range(count))))


async def after_a_look() -> None:
    await asyncio.sleep(_LOOK_EACH_S)  # the loop keeps the order of its timers


async def answering(driver: Any) -> Any:
    await ask(driver, "SELECT 1")
    return driver


async def ask(driver: Any, sql: str) -> Any:
    return await getattr(driver, "fetch" if hasattr(driver, "fetch") else "execute_fetchall")(sql)


@asynccontextmanager
async def lending(url: str, *, keeps: bool = True) -> AsyncIterator[Lent]:
    lent = Lent(open_engine(url))
    if keeps:
        lent.lender.keep()
    try:
        yield lent
    finally:
        await lent.lender.stop()
        assert lent.pool.checkedout() == 0
        await lent.engine.dispose()


async def test_a_connection_that_came_back_is_lent_again_without_the_pool(
    database_url: str,
) -> None:
    async with lending(database_url) as lent:
        assert len({await lent.driver() for _ in range(5)}) == 1
        assert (lent.checkouts, lent.pool.checkedout()) == (1, 1)


async def test_what_nobody_told_to_keep_gives_each_connection_back(database_url: str) -> None:
    async with lending(database_url, keeps=False) as lent:
        for count in (1, 2):
            await lent.driver()
            assert (lent.checkouts, lent.pool.checkedout()) == (count, 0)


async def test_the_only_connection_of_a_pool_is_not_kept_from_others() -> None:
    async with lending("sqlite://") as lent:
        await lent.driver()
        assert lent.pool.checkedout() == 0


async def test_who_is_alone_after_many_keeps_one_and_the_pool_gets_the_others_back(
    database_url: str,
) -> None:
    async with lending(database_url) as lent:
        assert len(await lent.at_once(4)) == 4
        await after_a_look()
        assert lent.pool.checkedout() == 4
        used = await lent.driver()
        assert await lent.driver() is used
        await after_a_look()
        await until(lambda: lent.pool.checkedout() == 1)
        assert await lent.driver() is used
        assert lent.checkouts == 4


async def test_the_pool_gets_everything_back_when_nobody_asks_any_more(database_url: str) -> None:
    async with lending(database_url) as lent:
        for _ in range(2):  # there is a next look after a rest, too
            await lent.at_once(3)
            assert lent.pool.checkedout() == 3
            await until(lambda: lent.pool.checkedout() == 0)


async def test_a_lender_that_is_stopped_hands_back_all_and_keeps_nothing_more(
    database_url: str,
) -> None:
    async with lending(database_url) as lent:
        await lent.at_once(3)
        await lent.lender.stop()
        assert lent.pool.checkedout() == 0
        await lent.driver()
        assert (lent.checkouts, lent.pool.checkedout()) == (4, 0)


async def test_what_is_in_use_when_its_lender_is_stopped_is_handed_back_later(
    database_url: str,
) -> None:
    async with lending(database_url) as lent:

        async def stop(driver: Any) -> None:
            await lent.lender.stop()
            assert lent.pool.checkedout() == 1
            await answering(driver)

        await lent.lender.lend(stop)
        assert lent.pool.checkedout() == 0


async def test_no_two_tasks_ever_have_the_same_connection(database_url: str) -> None:
    in_use: set[Any] = set()

    async def alone(driver: Any) -> None:
        assert driver not in in_use
        in_use.add(driver)
        await answering(driver)
        in_use.remove(driver)

    async with lending(database_url) as lent:

        async def often() -> None:
            for _ in range(20):
                await lent.lender.lend(alone)

        await asyncio.gather(*(often() for _ in range(10)))


async def fail_between(driver: Any) -> None:
    raise ValueError(await ask(driver, "BEGIN"))


async def fail_in_a_statement(driver: Any) -> None:
    await ask(driver, "SELECT nothing FROM nowhere")


async def be_cancelled(driver: Any) -> None:
    asyncio.current_task().cancel()  # type: ignore[union-attr]
    await answering(driver)


@pytest.mark.parametrize(
    "work, error, stays",
    [
        (fail_between, ValueError, False),
        (fail_in_a_statement, (asyncpg.PostgresError, sqlite3.Error), True),
        (be_cancelled, asyncio.CancelledError, False),
    ],
)
async def test_only_a_connection_that_is_still_of_use_stays_at_hand(
    database_url: str, work: Callable[[Any], Awaitable[None]], error: Any, stays: bool
) -> None:
    async with lending(database_url) as lent:
        before = await lent.driver()
        with pytest.raises(error):
            await lent.lender.lend(work)
        assert lent.pool.checkedout() == (1 if stays else 0)
        assert (await lent.driver() is before) is stays


async def test_a_connection_that_the_server_has_closed_meanwhile_fails_once(
    postgres_url: str,
) -> None:
    async with lending(postgres_url) as lent:
        gone = await lent.driver()
        with psycopg.connect(sync_url(postgres_url), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [gone.get_server_pid()])
        await until(gone.is_closed)
        with pytest.raises(asyncpg.InterfaceError):
            await lent.driver()
        assert await lent.driver() is not gone


async def test_one_that_fails_when_it_is_handed_back_does_not_hold_up_the_others(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    lent = Lent(open_engine(database_url))
    failed: list[Any] = []
    lent.lender.keep()

    @event.listens_for(lent.engine.sync_engine, "checkin")
    def fail(connection: Any, _: object) -> None:
        if not failed:
            failed.append(connection.driver_connection)
            raise OSError("gone")

    await lent.at_once(3)
    await lent.lender.stop()
    assert lent.pool.checkedin() == 2
    assert caplog.text.count("failed when it was handed back") == 1
    await failed[0].close()
    await lent.engine.dispose()


async def test_a_memory_of_its_own_asks_its_pool_once_and_leaves_no_connection(
    postgres_url: str,
) -> None:
    checkouts: list[object] = []

    def count(*_: object) -> None:
        checkouts.append(None)

    async with SQLMemory.open(postgres_url) as memory:
        event.listen(Pool, "checkout", count)
        for _ in range(5):
            await memory.add(Message.user("hi"), "alice")
            await memory.get_messages("alice")
        event.remove(Pool, "checkout", count)
    assert len(checkouts) == 1
    assert connections(postgres_url) == 0
