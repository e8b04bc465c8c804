"""What a database means to do for the statements of a memory, seen while they are executed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiosqlite
import asyncpg
import psycopg
from sqlalchemy import Engine, event, make_url

from tests.faults.checks import sync_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

MESSAGES: Final = 50_000
LIGHT_USERS: Final = 5_000
_AT: Final = "'2026-01-01 00:00:00.000000'"
# One user with as many messages as all the others have together, ten each.
_CONVERSATIONS: Final = f"""
INSERT INTO conversations
    (user_id, session_id, first_seq, last_seq, message_count, created_at, last_active_at)
SELECT user_id, 'default', 1, messages, messages, {_AT}, {_AT} FROM (
    SELECT 'light-' || n AS user_id, 10 AS messages FROM numbers WHERE n <= {LIGHT_USERS}
    UNION ALL SELECT 'heavy', {MESSAGES}
) AS users"""
_MESSAGES: Final = f"""
INSERT INTO messages (user_id, session_id, seq, role, content, created_at)
SELECT 'heavy', 'default', n, CASE n % 5000 WHEN 1 THEN 'system' ELSE 'user' END, 'hello', {_AT}
FROM numbers
UNION ALL
SELECT 'light-' || (1 + n / 10), 'default', 1 + n % 10, 'user', 'hello', {_AT}
FROM (SELECT n - 1 AS n FROM numbers) AS from_zero"""
# A run for every second message.
_RUNS: Final = f"""
INSERT INTO runs
    (user_id, session_id, run_id, agent_id, status, attempt, input_sha256, first_seq, last_seq,
     model, input_tokens, output_tokens, started_at, finished_at)
SELECT user_id, session_id, 'run-' || seq, 'shop', 'cancelled', 1, 'x', seq - 1, seq, 'm', 1, 1,
    {_AT}, {_AT}
FROM messages WHERE seq % 2 = 0"""
_NUMBERS: Final = (
    "CREATE TEMP TABLE numbers AS WITH RECURSIVE s (n) AS "
    f"(SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {MESSAGES}) SELECT n FROM s"
)


class Executed(NamedTuple):
    """A statement and what it was given."""

    sql: str
    parameters: tuple[Any, ...]


def fill(url: str) -> None:
    """Store the two unequal kinds of users, and have the planner count them."""
    filled = (_CONVERSATIONS, _MESSAGES, _RUNS)
    if "sqlite" in url:
        with closing(sqlite3.connect(str(make_url(url).database))) as file, file:
            for statement in (_NUMBERS, *filled, "ANALYZE"):
                file.execute(statement)
        return
    with psycopg.connect(sync_url(url), autocommit=True) as server:
        # Foreign keys are not checked in this role, row by row: most of the time it would take.
        server.execute("SET session_replication_role = replica")
        timed = [s.replace(_AT, f"timestamptz {_AT}") for s in filled]
        for statement in (_NUMBERS, *timed, "VACUUM ANALYZE"):
            server.execute(statement)


@contextmanager
def executed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Executed]]:
    """Collect what is executed within, whichever way it goes."""
    seen: list[Executed] = []

    def see(_conn: object, _cursor: object, sql: str, parameters: Any, *_: object) -> None:
        seen.append(Executed(sql, tuple(parameters)))

    def watch(driver: type, name: str, *, is_many: bool = False) -> None:
        method = getattr(driver, name)

        @wraps(method)
        def watched(connection: object, sql: str, *args: Any, **named: Any) -> object:
            given = args
            if driver is aiosqlite.Connection:
                given = tuple(args[0]) if args else ()
                if is_many:
                    args = (given,)
                    given = tuple(given[0])
            seen.append(Executed(sql, given))
            return method(connection, sql, *args, **named)

        within.setattr(driver, name, watched)

    event.listen(Engine, "before_cursor_execute", see)
    try:
        with monkeypatch.context() as within:
            watch(asyncpg.Connection, "fetch")
            watch(aiosqlite.Connection, "execute_fetchall")
            watch(aiosqlite.Connection, "executemany", is_many=True)
            yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", see)


def sqlite_plan(url: str, statement: Executed) -> list[str]:
    """Return the lines of SQLite's plan."""
    with closing(sqlite3.connect(str(make_url(url).database))) as file:
        rows = file.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters)
        return [row[3] for row in rows]


async def postgresql_plans(url: str, statement: Executed) -> list[dict[str, Any]]:
    """Return PostgreSQL's plan for these parameters, and the one that it keeps for any."""
    connection = await asyncpg.connect(sync_url(url))
    try:
        own = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON) {statement.sql}", *statement.parameters
        )
    finally:
        await connection.close()
    with psycopg.connect(sync_url(url)) as server:
        kept = server.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement.sql}").fetchone()
    assert kept is not None
    return [json.loads(own)[0]["Plan"], kept[0][0]["Plan"]]


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan of PostgreSQL."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes_of(inner)
