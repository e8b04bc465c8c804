"""Transactions: begun the right way on each database, tried again where that is safe."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext, suppress
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
from agno_sql.settled import settled
from agno_sql.store.faults import (
    DRIVER_ERRORS,
    DriverError,
    Fault,
    classify,
    code_of,
    surely_rolled_back,
    unknown_commit,
)
from agno_sql.store.lending import Lender, with_connection
from agno_sql.store.schema import check_schema
from agno_sql.store.url import shown_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection

_T = TypeVar("_T")

_RETRY_FOR_S: Final = 30.0
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.25
ANSWER_WITHIN_S: Final = 30.0
_BUSY: Final = frozenset({Fault.TRY_AGAIN})
_PASSING: Final = frozenset({Fault.TRY_AGAIN, Fault.DISCONNECTED})
_PATIENT: Final = _PASSING | {Fault.UNREACHABLE}


class Database:
    """One engine, seen as a place to read and to write; it stays the caller's to dispose.

    What happens in ``read`` and ``write`` must be safe to repeat: both try again, for 30 seconds
    at most and with jitter, after a deadlock, while the database is busy, and when a connection
    was lost before COMMIT. A write runs at READ COMMITTED on PostgreSQL and holds the write lock
    from its beginning on SQLite, whatever the engine's settings are. A server that does not
    answer for 30 seconds is given up on, but for work that may take *long*. A statement that has
    begun is settled before a cancellation is raised: SQLAlchemy abandons the connection of one that
    is cancelled, which on SQLite goes on in its thread with the write lock until the garbage
    collector comes by.

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
        # What goes straight to the driver would look for the tables elsewhere.
        is_elsewhere = engine.get_execution_options().get("schema_translate_map")
        self.driver = None if is_elsewhere else engine.dialect.driver
        self._is_closed = False
        self._lender = Lender(engine)
        # SQLite has one writer at a time; waiting here is fair, its own busy handler is not.
        self._writers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._writers = WeakKeyDictionary()

    async def read(
        self,
        work: Callable[[AsyncConnection], Awaitable[_T]],
        *,
        patient: bool = False,
        long: bool = False,
    ) -> _T:
        """Return what *work* returns; it gets a connection for reading. The rest as in write."""

        async def attempt() -> _T:
            async with self._engine.connect() as conn, self._limit(long=long):
                return await work(conn)

        return await self._try(lambda: settled(attempt()), again=_PATIENT if patient else _PASSING)

    async def write(
        self,
        work: Callable[[AsyncConnection], Awaitable[_T]],
        *,
        repeatable: bool = False,
        patient: bool = False,
        long: bool = False,
    ) -> _T:
        """Return what *work* returns, after its transaction was committed.

        A *repeatable* work finds out by itself whether it was done already: it is also repeated
        when the outcome of a commit is unknown. With *patient*, a database that can't be reached
        is waited for as for a busy one, and not told at once.
        """
        async with self._turn(is_write=True):
            return await self._try(
                lambda: settled(self._write_once(work, long=long)),
                repeatable=repeatable,
                again=_PATIENT if patient else _PASSING,
            )

    async def write_back(self) -> None:
        """Bring what is committed from SQLite's log into its file, while others write.

        Else a commit does so when the log is long, and who writes next waits for it too.
        """
        if self._is_sqlite:
            await self.read(
                lambda conn: conn.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)"), long=True
            )

    async def direct(self, work: Callable[[Any], Awaitable[_T]], *, is_write: bool = False) -> _T:
        """Return what *work* returns; it gets the driver's own connection, in no transaction.

        For what is hot: SQLAlchemy's cursor doubles the CPU of a statement on PostgreSQL, and takes
        four hops to the connection's thread instead of one on SQLite. Only a busy database is
        tried again. A *work* that writes commits by itself, and has to raise OutcomeUnknownError
        where it can't know.

        Raises:
            DRIVER_ERRORS: Nothing was stored, and another way may be tried.
            StoreUnavailableError: The database stayed busy, or did not answer; nothing was stored.
        """
        async with self._turn(is_write=is_write):
            return await self._try(lambda: self._lender.lend(work), again=_BUSY, is_direct=True)

    async def _write_once(
        self, work: Callable[[AsyncConnection], Awaitable[_T]], *, long: bool
    ) -> _T:
        async def transaction(conn: AsyncConnection) -> _T:
            async with self._limit(long=long):
                await self._begin(conn)
                result = await work(conn)
            await self._commit(conn)
            return result

        return await with_connection(self._engine, transaction)

    def _turn(self, *, is_write: bool) -> AbstractAsyncContextManager[object]:
        if not (is_write and self._is_sqlite):
            return nullcontext()
        return self._writers.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    def _limit(self, *, long: bool = False) -> asyncio.Timeout:
        # SQLite answers from this process: a statement that is cancelled there keeps its lock.
        return asyncio.timeout(None if long or self._is_sqlite else ANSWER_WITHIN_S)

    def keep_connections(self) -> None:
        """Keep connections for ``direct`` at hand: the engine and its pool are our own."""
        self._lender.keep()

    def close(self) -> None:
        """Refuse everything from now on."""
        self._is_closed = True

    async def hand_back(self) -> None:
        """Give the engine back every connection that is not in use, whoever cancels meanwhile."""
        await settled(self._lender.stop())

    async def _try(
        self,
        attempt: Callable[[], Awaitable[_T]],
        *,
        again: frozenset[Fault],
        repeatable: bool = False,
        is_direct: bool = False,
    ) -> _T:
        if self._is_closed:
            raise StoreError("this memory is closed: the block that opened it has ended")
        clock = asyncio.get_running_loop().time
        give_up_at, pause = clock() + _RETRY_FOR_S, _FIRST_PAUSE_S
        unknown: OutcomeUnknownError | None = None
        while True:
            try:
                return await attempt()
            except OutcomeUnknownError as error:
                if not repeatable or clock() > give_up_at:
                    raise
                unknown, again = error, _PATIENT
            except DRIVER_ERRORS as error:
                fault = classify(error)
                if is_direct and fault not in again and not isinstance(error, TimeoutError):
                    raise
                if fault not in again or clock() > give_up_at:
                    raise unknown or await self._explained(error, fault) from error
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
                async with self._limit():
                    await conn.commit()
        except DRIVER_ERRORS as error:
            if surely_rolled_back(error):
                raise
            raise unknown_commit(error) from error

    async def _explained(self, error: DriverError, fault: Fault) -> StoreError:
        where, code = shown_url(self._engine.url), code_of(error)
        if fault is Fault.SCHEMA:
            with suppress(*DRIVER_ERRORS):
                async with self._limit(), self._engine.connect() as conn:
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
