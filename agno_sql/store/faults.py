"""What a driver's error means. By SQLSTATE or SQLite code, never by its text; only here."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Final

from asyncpg import InterfaceError, PostgresError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agno_sql.errors import OutcomeUnknownError


class Fault(Enum):
    """How a database call failed, by what may be done next."""

    TRY_AGAIN = auto()
    """The transaction was rolled back for a passing reason."""

    DISCONNECTED = auto()
    """The connection is gone: before COMMIT nothing was stored, at COMMIT it is unknown."""

    OVERLOADED = auto()
    """It can't be done for now, and passes: no connection was free, the disk is full."""

    UNREACHABLE = auto()
    """No connection could be made, or none may be."""

    SCHEMA = auto()
    """A table or column is missing, or it may be that."""

    REFUSED = auto()
    """The database understood and refused."""


_SQLSTATE: Final = {
    "40001": Fault.TRY_AGAIN,  # serialization_failure
    "40P01": Fault.TRY_AGAIN,  # deadlock_detected
    "55P03": Fault.TRY_AGAIN,  # lock_not_available
    "57P01": Fault.DISCONNECTED,  # admin_shutdown
    "57P02": Fault.DISCONNECTED,  # crash_shutdown
    "57P03": Fault.DISCONNECTED,  # cannot_connect_now: the server is starting
    "53300": Fault.TRY_AGAIN,  # too_many_connections
    "53100": Fault.OVERLOADED,  # disk_full
    "53200": Fault.OVERLOADED,  # out_of_memory
    "53400": Fault.OVERLOADED,  # configuration_limit_exceeded
    "57014": Fault.OVERLOADED,  # query_canceled: the server's statement_timeout
    "58030": Fault.OVERLOADED,  # io_error
    "25006": Fault.OVERLOADED,  # read_only_sql_transaction: a failover is under way
    "3D000": Fault.UNREACHABLE,  # invalid_catalog_name: no such database
    "28P01": Fault.UNREACHABLE,  # invalid_password
    "28000": Fault.UNREACHABLE,  # invalid_authorization_specification
    "42P01": Fault.SCHEMA,  # undefined_table
    "42703": Fault.SCHEMA,  # undefined_column
}
_SQLITE: Final = {
    sqlite3.SQLITE_BUSY: Fault.TRY_AGAIN,
    sqlite3.SQLITE_LOCKED: Fault.TRY_AGAIN,
    sqlite3.SQLITE_CANTOPEN: Fault.UNREACHABLE,
    sqlite3.SQLITE_NOTADB: Fault.UNREACHABLE,
    sqlite3.SQLITE_IOERR: Fault.DISCONNECTED,
    sqlite3.SQLITE_FULL: Fault.OVERLOADED,
    sqlite3.SQLITE_ERROR: Fault.SCHEMA,  # SQLite has no code of its own for "no such table"
}
DriverError = (
    DBAPIError
    | AsyncAdapt_asyncpg_dbapi.Error
    | PoolTimeoutError
    | OSError
    | PostgresError
    | InterfaceError
    | sqlite3.Error
)
DRIVER_ERRORS: Final = (
    DBAPIError,
    AsyncAdapt_asyncpg_dbapi.Error,
    PoolTimeoutError,
    OSError,
    PostgresError,
    InterfaceError,
    sqlite3.Error,
)
"""Not all are wrapped: asyncpg's refused connections and time-outs are OSErrors, SQLAlchemy 2.0
leaves what a server says at connecting as it is, and so is what a connect hook on SQLite raises.
Where a connection is lent without SQLAlchemy's own, only its adapter for asyncpg wraps them."""


def classify(error: DriverError) -> Fault:
    """Return what *error* means."""
    if isinstance(error, PoolTimeoutError):
        return Fault.OVERLOADED
    if isinstance(error, OSError):
        return Fault.UNREACHABLE
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)  # absent where Python itself objects
        return Fault.REFUSED if code is None else _SQLITE.get(code & 0xFF, Fault.REFUSED)
    if _plan_went_stale(cause):
        return Fault.TRY_AGAIN
    sqlstate = getattr(cause, "sqlstate", None) or ""
    is_cut = isinstance(error, InterfaceError) and not isinstance(error, ValueError)
    if is_cut or getattr(error, "connection_invalidated", False) or sqlstate.startswith("08"):
        return Fault.DISCONNECTED
    return _SQLSTATE.get(sqlstate, Fault.REFUSED)


def surely_rolled_back(error: DriverError) -> bool:
    """Tell whether *error*, raised by COMMIT, means for sure that nothing was stored."""
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        return classify(error) is not Fault.DISCONNECTED
    sqlstate = getattr(cause, "sqlstate", None) or ""
    # Aborted as a whole, or a constraint that is checked last.
    return sqlstate in ("40001", "40P01") or sqlstate.startswith("23")


def unknown_commit(error: DriverError) -> OutcomeUnknownError:
    """Return what is told where *error* leaves unknown whether a commit has happened."""
    return OutcomeUnknownError(
        f"the database failed while committing ({code_of(error)}): read what is stored before you "
        "try again"
    )


def code_of(error: DriverError) -> str:
    """Return the database's or the system's word for *error*, without values and secrets."""
    cause = _cause(error)
    named = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    return str(named or type(cause).__name__)


def _cause(error: DriverError) -> BaseException | None:
    """Return what the driver raised, without SQLAlchemy's wrapping."""
    return error.orig if isinstance(error, DBAPIError) else error


def _plan_went_stale(cause: BaseException | None) -> bool:
    """Tell whether DDL of another session made a cached plan stale: prepared anew next time."""
    return isinstance(cause, AsyncAdapt_asyncpg_dbapi.InvalidCachedStatementError)
