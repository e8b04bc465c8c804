"""Filling the store's own tables with millions of messages, by the database itself."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import psycopg

from agno_sql import SQLMemory
from benchmarks.conversation import ASSISTANT_BYTES, PADDING, USER_BYTES
from benchmarks.workloads.growth import AGES

if TYPE_CHECKING:
    from benchmarks.driver import Place
    from benchmarks.plan import Rows

# The same words as those of benchmarks.conversation, so that they can be checked when read.
_TEXT: Final = f"""
CASE side WHEN 0
THEN substr('user-' || n || ' asks, turn ' || turn || ': ' || padding, 1, {USER_BYTES})
ELSE substr('To user-' || n || ', turn ' || turn || ': ' || padding, 1, {ASSISTANT_BYTES}) END
"""
_CONVERSATIONS: Final = """
INSERT INTO conversations
(user_id, session_id, first_seq, last_seq, message_count, created_at, last_active_at)
"""
_MESSAGES: Final = "INSERT INTO messages (user_id, session_id, seq, role, content, created_at)"
_ROLE: Final = "CASE side WHEN 0 THEN 'user' ELSE 'assistant' END"


def populate(place: Place, rows: Rows) -> None:
    """Make the tables and fill them, turn by turn as time would: a user's messages lie apart.

    The users' last activity was from today to 99 days ago, each age the same number of users.
    """
    asyncio.run(_migrate(place))
    if place.database == "sqlite":
        _populate_sqlite(place.address, rows)
    else:
        _populate_postgres(place.address, rows)


async def _migrate(place: Place) -> None:
    async with SQLMemory.open(place.sqlalchemy_url, migrate=True):
        pass


def _populate_postgres(address: str, rows: Rows) -> None:
    with psycopg.connect(address, autocommit=True) as connection:
        execute = connection.execute
        execute("SET session_replication_role = replica")  # no trigger a row for the foreign key
        execute("SET maintenance_work_mem = '512MB'")
        execute(
            f"{_CONVERSATIONS} SELECT 'user-' || n, 'default', 1, 2 * %(turns)s, 2 * %(turns)s, "
            f"now() - interval '200 days', now() - make_interval(days => n %% {AGES}, hours => 1) "
            "FROM generate_series(0, %(users)s - 1) AS n",
            {"turns": rows.turns, "users": rows.users},
        )
        execute("ALTER TABLE messages DROP CONSTRAINT pk_messages")
        for turn in range(rows.turns):
            execute(
                f"{_MESSAGES} SELECT 'user-' || n, 'default', 2 * turn + 1 + side, {_ROLE}, {_TEXT}, "
                "now() - interval '100 days' FROM generate_series(0, %(users)s - 1) AS n, "
                "generate_series(0, 1) AS side, (SELECT %(turn)s::int AS turn, "
                "%(padding)s::text AS padding) AS t",
                {"turn": turn, "users": rows.users, "padding": PADDING},
            )
        execute(
            "ALTER TABLE messages ADD CONSTRAINT pk_messages PRIMARY KEY (user_id, session_id, seq)"
        )
        execute("VACUUM (ANALYZE) conversations, messages")


def _populate_sqlite(path: str, rows: Rows) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        execute = connection.execute
        for pragma in ("synchronous=OFF", "foreign_keys=OFF", "cache_size=-2000000"):
            execute(f"PRAGMA {pragma}")
        execute("BEGIN")
        users = "WITH RECURSIVE u (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM u WHERE n < ? - 1)"
        execute(
            f"{users} {_CONVERSATIONS} SELECT 'user-' || n, 'default', 1, ?, ?, "
            "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-200 days'), "
            f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '-1 hour', '-' || (n % {AGES}) || ' days') "
            "FROM u",
            (rows.users, 2 * rows.turns, 2 * rows.turns),
        )
        for turn in range(rows.turns):
            execute(
                f"{users} {_MESSAGES} SELECT 'user-' || n, 'default', 2 * turn + 1 + side, {_ROLE}, "
                f"{_TEXT}, strftime('%Y-%m-%d %H:%M:%f000', 'now', '-100 days') FROM u, "
                "(SELECT 0 AS side UNION ALL SELECT 1), (SELECT ? AS turn, ? AS padding)",
                (rows.users, turn, PADDING),
            )
        execute("COMMIT")
        execute("PRAGMA wal_checkpoint(TRUNCATE)")
        execute("ANALYZE")
