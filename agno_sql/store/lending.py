"""The driver's own connections, lent for what is hot."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncpg import InterfaceError, PostgresError
from sqlalchemy import QueuePool
from sqlalchemy.util import greenlet_spawn

from agno_sql.store.faults import DRIVER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import PoolProxiedConnection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_T = TypeVar("_T")

_log: Final = logging.getLogger(__name__)
_LOOK_EACH_S: Final = 1.0


class Lender:
    """Lends connections of the engine's pool, in no transaction.

    On its owner's word it keeps those that come back at hand for a second or two, as a checkout
    costs a lone caller more than what it asks of the database. The one used last is taken first.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._home: asyncio.AbstractEventLoop | None = None
        self._idle: list[PoolProxiedConnection] = []
        self._unused = 0  # of those, the first that have not been taken since the last look
        self._next_look: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def keep(self) -> None:
        """Keep connections of this event loop from now on.

        For an engine of our own: the owner of another may have hooks that must see each checkout.
        """
        self._home = asyncio.get_running_loop()

    async def stop(self) -> None:
        """Hand back what is kept, and keep nothing more."""
        self._home = None
        if self._next_look is not None:
            self._next_look.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*self._closing, *map(_handed_back, idle))

    async def lend(self, work: Callable[[Any], Awaitable[_T]]) -> _T:
        """Return what *work* returns; it gets the driver's own connection.

        One that *work* may have left between two answers, or in a transaction, is thrown away.
        """
        if self._engine.sync_engine.dispatch.engine_connect:
            # What its owner has every connection do at first, as to look in another schema.
            return await with_connection(self._engine, partial(self._use_below, work))
        # Not by connect(), which costs as much as what a lone caller asks of the database.
        conn = self._taken() or await self._engine.raw_connection()
        try:
            return await self._use(work, conn)
        finally:
            if conn.is_valid and self._may_keep():
                self._put(conn)
            else:
                await _handed_back(conn)

    def _taken(self) -> PoolProxiedConnection | None:
        if not self._idle or asyncio.get_running_loop() is not self._home:
            return None
        conn = self._idle.pop()
        self._unused = min(self._unused, len(self._idle))
        return conn

    def _may_keep(self) -> bool:
        pool = self._engine.pool
        return (
            asyncio.get_running_loop() is self._home
            and isinstance(pool, QueuePool)
            # Of a pool that has lent more than it keeps, the next one may be waited for.
            and 1 < pool.size() >= pool.checkedout()
        )

    def _put(self, conn: PoolProxiedConnection) -> None:
        self._idle.append(conn)
        if self._next_look is None:
            self._look_later()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_look = loop.call_later(_LOOK_EACH_S, self._look) if self._idle else None

    def _look(self) -> None:
        for conn in self._idle[: self._unused]:
            task = asyncio.get_running_loop().create_task(_handed_back(conn))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        del self._idle[: self._unused]
        self._unused = len(self._idle)
        self._look_later()

    async def _use_below(self, work: Callable[[Any], Awaitable[_T]], conn: AsyncConnection) -> _T:
        return await self._use(work, await conn.get_raw_connection())

    async def _use(self, work: Callable[[Any], Awaitable[_T]], conn: PoolProxiedConnection) -> _T:
        driver: Any = conn.driver_connection
        if not self._is_sqlite and driver.is_in_transaction():
            # Nobody would commit what is stored in there.
            raise InterfaceError("a hook of this engine has begun a transaction")
        try:
            return await work(driver)
        except BaseException as error:
            # One that stands between two answers, or in a transaction, is of no use any more.
            if self._is_sqlite:
                is_of_use = not (driver.in_transaction or isinstance(error, asyncio.CancelledError))
            else:
                is_of_use = isinstance(error, PostgresError) and not driver.is_closed()
            if not is_of_use:
                await _logged(greenlet_spawn(conn.invalidate))
            raise


async def with_connection(
    engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[_T]]
) -> _T:
    """Return what *work* returns, even if its connection fails when it is handed back.

    What is committed must not be repeated, whatever happens to the connection.
    """
    done: list[_T] = []
    try:
        async with engine.connect() as conn:
            done.append(await work(conn))
    except DRIVER_ERRORS:
        if not done:
            raise
        _log_lost_connection()
    return done[0]


async def _handed_back(conn: PoolProxiedConnection) -> None:
    await _logged(greenlet_spawn(conn.close))


async def _logged(closing: Awaitable[None]) -> None:
    try:
        await closing
    except DRIVER_ERRORS:
        _log_lost_connection()


def _log_lost_connection() -> None:
    _log.warning("a connection failed when it was handed back", exc_info=True)
