"""Transactions: begun the right way on each database, tried again where that is safe."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import StaticPool
from sqlalchemy.ext.asyncio import AsyncEngine

from agno_sql.errors import (
    InvalidOptionError,
    OutcomeUnknownError,
    StoreError,
    StoreUnavailableError,
)
from agno_sql.ids import shown
from agno_sql.store.faults import (
    DRIVER_ERRORS,
    DriverError,
    Fault,
    classify,
    code_of,
    surely_rolled_back,
)
from agno_sql.store.schema import check_schema
from agno_sql.store.url import shown_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sqlalchemy.ext.asyncio import AsyncConnection

_T = TypeVar("_T")

_log: Final = logging.getLogger(__name__)
_RETRY_FOR_S: Final = 30.0
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.25
_SETTLE_FOR_S: Final = 5.0


class Database:
    """One engine, seen as a place to read and to write; it stays the caller's to dispose.

    What happens in ``read`` and ``write`` must be safe to repeat: both try again, for 30 seconds
    at most and with jitter, after a deadlock, while the database is busy, and when a connection
    was lost before COMMIT. A write runs at READ COMMITTED on PostgreSQL and holds the write lock
    from its beginning on SQLite, whatever the engine's settings are.

    Raises (both methods):
        StoreUnavailableError: The database could not be reached, or stayed busy; nothing stored.
        OutcomeUnknownError: The connection broke at COMMIT.
        SchemaOutOfDateError: The tables are missing or not of this version.
        StoreError: The database refused for another reason; nothing stored.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        if not isinstance(engine, AsyncEngine):
            raise InvalidOptionError(
                f"engine must be an AsyncEngine, made by create_async_engine, got {shown(engine)}"
            )
        if isinstance(engine.pool, StaticPool):
            raise InvalidOptionError(
                "engine must not share one connection between all tasks (StaticPool): their "
                "transactions would mix; give it poolclass=AsyncAdaptedQueuePool, pool_size=1, "
                "max_overflow=0, or use SQLMemory.open"
            )
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._is_closed = False
        # SQLite has one writer at a time; waiting here is fair, its own busy handler is not.
        self._writers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._writers = WeakKeyDictionary()

    async def read(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        """Return what *work* returns; it gets a connection for reading."""

        async def attempt() -> _T:
            async with self._engine.connect() as conn:
                return await work(conn)

        return await self._try(attempt)

    async def write(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        """Return what *work* returns, after its transaction was committed."""
        async with AsyncExitStack() as stack:
            if self._is_sqlite:
                lock = self._writers.setdefault(asyncio.get_running_loop(), asyncio.Lock())
                await stack.enter_async_context(lock)
            return await self._try(lambda: self._write_once(work))

    async def _write_once(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        is_committed = False
        try:
            async with self._engine.connect() as conn:
                await self._begin(conn)
                result = await work(conn)
                await self._commit(conn)
                is_committed = True
        except DRIVER_ERRORS:
            if not is_committed:
                raise
            # What is committed must not be repeated, whatever happens to the connection.
            _log.warning("a connection failed after its commit", exc_info=True)
        return result

    def close(self) -> None:
        """Refuse everything from now on."""
        self._is_closed = True

    async def _try(self, attempt: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        if self._is_closed:
            raise StoreError("this memory is closed: the block that opened it has ended")
        clock = asyncio.get_running_loop().time
        give_up_at, pause = clock() + _RETRY_FOR_S, _FIRST_PAUSE_S
        while True:
            try:
                return await _settled(attempt())
            except DRIVER_ERRORS as error:
                fault = classify(error)
                if fault not in (Fault.TRY_AGAIN, Fault.DISCONNECTED) or clock() > give_up_at:
                    raise await self._explained(error, fault) from error
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311  (jitter)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _begin(self, conn: AsyncConnection) -> None:
        if not self._is_sqlite:
            # The owner may have chosen AUTOCOMMIT, where nothing is atomic, or a level that
            # doesn't see who came back during a clean-up.
            await conn.execution_options(isolation_level="READ COMMITTED")
            return
        # Python's driver would begin a deferred transaction, and two of those can lose an update.
        # Hooks of a foreign engine may have begun one already.
        await conn.begin()
        driver = (await conn.get_raw_connection()).driver_connection
        if driver is not None and driver.in_transaction:
            await conn.exec_driver_sql("ROLLBACK")
        await conn.exec_driver_sql("BEGIN IMMEDIATE")

    async def _commit(self, conn: AsyncConnection) -> None:
        try:
            if self._is_sqlite:
                # As we began it: a driver in autocommit mode would not commit.
                await conn.exec_driver_sql("COMMIT")
            else:
                await conn.commit()
        except DRIVER_ERRORS as error:
            if surely_rolled_back(error):
                raise
            raise OutcomeUnknownError(
                f"the database failed while committing ({code_of(error)}): read what is stored "
                "before you try again"
            ) from error

    async def _explained(self, error: DriverError, fault: Fault) -> StoreError:
        where, code = shown_url(self._engine.url), code_of(error)
        if fault is Fault.SCHEMA:
            with suppress(*DRIVER_ERRORS):
                async with self._engine.connect() as conn:
                    await check_schema(conn)
        if fault in (Fault.SCHEMA, Fault.REFUSED):
            return StoreError(f"the database refused ({code}); nothing was stored: {where}")
        if fault is Fault.UNREACHABLE:
            next_step = (
                "check that its folder exists, may be written, and that it is an SQLite file"
                if self._is_sqlite
                else "check that it runs, and the host, user, password and database of the URL"
            )
            return StoreUnavailableError(
                f"the database can't be reached ({code}); {next_step}: {where}"
            )
        return StoreUnavailableError(
            f"the database was too busy or went away ({code}); nothing was stored, try again "
            f"later: {where}"
        )


async def _settled(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what *work* returns; a cancellation is raised when it has ended, one way or another.

    SQLAlchemy abandons a connection whose statement is cancelled. On SQLite that statement goes on
    in its thread, and its write lock stays until the garbage collector comes by; on PostgreSQL the
    connection is lost. So *work* is let go on, unless it takes too long.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + _SETTLE_FOR_S
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task], timeout=max(0.0, give_up_at - clock()))
            if clock() >= give_up_at:
                task.cancel()
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would complain that nobody did
        raise
