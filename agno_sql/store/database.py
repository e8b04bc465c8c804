"""Transactions: begun the right way on each database, tried again where that is safe."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import StaticPool
from sqlalchemy.ext.asyncio import AsyncEngine

from agno_sql.errors import (
    InvalidOptionError,
    OutcomeUnknownError,
    StoreError,
    StoreUnavailableError,
)
from agno_sql.ids import shown
from agno_sql.store.faults import DRIVER_ERRORS, DriverError, Fault, classify, code_of
from agno_sql.store.schema import check_schema
from agno_sql.store.url import shown_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sqlalchemy.ext.asyncio import AsyncConnection

_T = TypeVar("_T")

_RETRIES: Final = 5
_RETRY_FOR_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.02


class Database:
    """One engine, seen as a place to read and to write; it stays the caller's to dispose.

    What happens in ``read`` and ``write`` must be safe to repeat: both try again, a few times and
    with jitter, after a deadlock, a busy database or a connection lost before COMMIT.

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
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._one_connection = isinstance(engine.pool, StaticPool)
        # SQLite has one writer at a time; waiting here is fair, its own busy handler is not.
        self._writers = asyncio.Lock()

    async def read(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        """Return what *work* returns; it gets a connection for reading."""

        async def attempt() -> _T:
            async with self._engine.connect() as conn:
                return await work(conn)

        return await self._try(attempt, alone=self._one_connection)

    async def write(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        """Return what *work* returns, after its transaction was committed."""

        async def attempt() -> _T:
            async with self._engine.connect() as conn:
                if self._is_sqlite:
                    await _begin_immediate(conn)
                result = await work(conn)
                await _commit(conn)
                return result

        return await self._try(attempt, alone=self._is_sqlite)

    async def _try(self, attempt: Callable[[], Coroutine[Any, Any, _T]], *, alone: bool) -> _T:
        give_up_at = asyncio.get_running_loop().time() + _RETRY_FOR_S
        async with AsyncExitStack() as stack:
            if alone:
                await stack.enter_async_context(self._writers)
            for retry in range(_RETRIES + 1):
                try:
                    return await (_settled(attempt()) if self._is_sqlite else attempt())
                except DRIVER_ERRORS as error:
                    fault = classify(error)
                    late = asyncio.get_running_loop().time() > give_up_at
                    if retry == _RETRIES or late or not _may_repeat(fault):
                        raise await self._explained(error, fault) from error
                await asyncio.sleep(random.uniform(0, _FIRST_PAUSE_S * 2**retry))  # noqa: S311  (jitter)
        raise AssertionError("unreachable")  # pragma: no cover

    async def _explained(self, error: DriverError, fault: Fault) -> StoreError:
        where, code = shown_url(self._engine.url), code_of(error)
        if fault is Fault.SCHEMA:
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
    in its thread, and its write lock stays until the garbage collector comes by. What is waited
    for is bounded by the busy timeout.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would complain that nobody did
        raise


def _may_repeat(fault: Fault) -> bool:
    return fault in (Fault.TRY_AGAIN, Fault.DISCONNECTED)


async def _begin_immediate(conn: AsyncConnection) -> None:
    """Begin with the write lock, whatever the engine's owner arranged.

    Python's driver would begin a deferred transaction, and two of those can lose an update. Hooks
    of a foreign engine may have begun one already.
    """
    await conn.begin()
    driver = (await conn.get_raw_connection()).driver_connection
    if driver is not None and driver.in_transaction:
        await conn.exec_driver_sql("ROLLBACK")
    await conn.exec_driver_sql("BEGIN IMMEDIATE")


async def _commit(conn: AsyncConnection) -> None:
    try:
        await conn.commit()
    except DRIVER_ERRORS as error:
        if classify(error) in (Fault.DISCONNECTED, Fault.UNREACHABLE):
            raise OutcomeUnknownError(
                f"the connection broke while committing ({code_of(error)}): read what is stored "
                "before you try again"
            ) from error
        raise
