"""Sees the statements of this process on their way to a database."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import aiosqlite
import asyncpg
from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What the store calls of the drivers themselves.
_DIRECT: Final = (
    (asyncpg.Connection, "fetch"),
    (aiosqlite.Connection, "execute_fetchall"),
    (aiosqlite.Connection, "executemany"),
)


@contextmanager
def statements(then: Callable[[str], object]) -> Iterator[None]:
    """Tell *then* each statement before it goes, COMMIT included, whichever way it goes."""

    def see(_connection: object, _cursor: object, sql: str, *_: object) -> None:
        then(sql)

    def see_commit(_: object) -> None:
        then("COMMIT")  # PostgreSQL's is no statement of a cursor

    event.listen(Engine, "before_cursor_execute", see)
    event.listen(Engine, "commit", see_commit)
    try:
        with direct_statements(then):
            yield
    finally:
        event.remove(Engine, "before_cursor_execute", see)
        event.remove(Engine, "commit", see_commit)


@contextmanager
def direct_statements(then: Callable[[str], object]) -> Iterator[None]:
    """Tell *then* each statement that goes to a driver directly, before it does."""
    with ExitStack() as stack:
        for driver, method in _DIRECT:
            stack.enter_context(_watched(driver, method, then))
        yield


@contextmanager
def _watched(driver: type, name: str, then: Callable[[str], object]) -> Iterator[None]:
    method = getattr(driver, name)

    @wraps(method)
    def watched(connection: object, statement: str, *args: Any, **named: Any) -> object:
        then(statement.strip())
        return method(connection, statement, *args, **named)

    setattr(driver, name, watched)
    try:
        yield
    finally:
        setattr(driver, name, method)
