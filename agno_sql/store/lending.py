"""The driver's own connections, lent for what is hot."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from asyncpg import InterfaceError, PostgresError
from sqlalchemy.util import greenlet_spawn

from agno_sql.store.faults import DRIVER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import PoolProxiedConnection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_T = TypeVar("_T")

_log: Final = logging.getLogger(__name__)
_LOOK_EACH_S: Final = 1.0


@dataclass(slots=True, eq=False)
class _Kept:
    """What one event loop has at hand; the one used last is taken first.

    ``unused`` is how many have not been taken since the last look: the first ones.
    """

    idle: list[PoolProxiedConnection] = field(default_factory=list)
    unused: int = 0
    look: asyncio.TimerHandle | None = None
    closing: set[asyncio.Task[None]] = field(default_factory=set)


class Lender:
    """Lends connections of the engine's pool, in no transaction.

    On its owner's word it keeps those that come back at hand for a second or two, as a checkout
    costs a lone caller more than what it asks of the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._keeps = False
        self._kept: WeakKeyDictionary[asyncio.AbstractEventLoop, _Kept] = WeakKeyDictionary()

    def keep(self) -> None:
        """Keep connections from now on, if the pool has several.

        For an engine of our own: the owner of another may have hooks that must see each checkout,
        or a pool that is too small.
        """
        self._keeps = self._engine.pool.size() > 1  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """Hand back what this event loop keeps, and keep nothing more."""
        self._keeps = False
        if kept := self._kept.pop(asyncio.get_running_loop(), None):
            if kept.look:
                kept.look.cancel()
            await asyncio.gather(*kept.closing, *map(_handed_back, kept.idle))

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
            if not self._keeps or not conn.is_valid:
                await _handed_back(conn)
            else:
                self._put(conn)

    def _taken(self) -> PoolProxiedConnection | None:
        kept = self._kept.get(asyncio.get_running_loop()) if self._keeps else None
        if kept is None or not kept.idle:
            return None
        conn = kept.idle.pop()
        kept.unused = min(kept.unused, len(kept.idle))
        return conn

    def _put(self, conn: PoolProxiedConnection) -> None:
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is None:
            kept = self._kept[loop] = _Kept()
        kept.idle.append(conn)
        if kept.look is None:
            kept.look = loop.call_later(_LOOK_EACH_S, self._look, loop, kept)

    def _look(self, loop: asyncio.AbstractEventLoop, kept: _Kept) -> None:
        for conn in kept.idle[: kept.unused]:
            task = loop.create_task(_handed_back(conn))
            kept.closing.add(task)
            task.add_done_callback(kept.closing.discard)
        del kept.idle[: kept.unused]
        kept.unused = len(kept.idle)
        kept.look = loop.call_later(_LOOK_EACH_S, self._look, loop, kept) if kept.idle else None

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
                is_of_use = isinstance(error, PostgresError)
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
