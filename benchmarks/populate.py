"""Filling tables with millions of messages, by the database itself."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import psycopg

from agno_sql import SQLMemory
from benchmarks.conversation import ASSISTANT_BYTES, PADDING, USER_BYTES
from benchmarks.drivers import raw_postgres, raw_sqlite
from benchmarks.workloads.growth import AGES

if TYPE_CHECKING:
    from benchmarks.driver import Place
    from benchmarks.plan import Rows

# The same words as those of benchmarks.conversation, so that they can be checked when read.
_MESSAGE: Final = f"""
2 * turn + 1 + side, CASE side WHEN 0 THEN 'user' ELSE 'assistant' END,
CASE side WHEN 0
THEN substr('user-' || n || ' asks, turn ' || turn || ': ' || padding, 1, {USER_BYTES})
ELSE substr('To user-' || n || ', turn ' || turn || ': ' || padding, 1, {ASSISTANT_BYTES}) END
"""
_OURS: Final = (
    """conversations
    (last_active_at, user_id, session_id, first_seq, last_seq, message_count, created_at)""",
    "'default', 1, last, last, past",
    "messages (created_at, user_id, session_id, seq, role, content)",
    "'default', ",
    "PRIMARY KEY (user_id, session_id, seq)",
)
_RAW: Final = (
    "conversations (last_active_at, user_id, last_seq)",
    "last",
    "messages (created_at, user_id, seq, role, content)",
    "",
    "PRIMARY KEY (user_id, seq)",
)


def populate(place: Place, rows: Rows, *, has_our_tables: bool) -> None:
    """Make the tables and fill them, turn by turn as time would: a user's messages lie apart.

    The users' last activity was from today to 99 days ago, each age the same number of users.
    """
    if has_our_tables:
        asyncio.run(_migrate(place))
    fill = _populate_sqlite if place.database == "sqlite" else _populate_postgres
    fill(place.address, rows, _OURS if has_our_tables else _RAW)


async def _migrate(place: Place) -> None:
    async with SQLMemory.open(place.sqlalchemy_url, migrate=True):
        pass


def _populate_postgres(address: str, rows: Rows, tables: tuple[str, ...]) -> None:
    conversations, conversation, messages, session, key = tables
    with psycopg.connect(address, autocommit=True) as connection:
        execute = connection.execute
        execute(raw_postgres.TABLES.encode())  # ours are there already
        execute("SET session_replication_role = replica")  # no trigger a row for the foreign key
        execute("SET maintenance_work_mem = '512MB'")
        execute(
            f"INSERT INTO {conversations} SELECT now() - make_interval(days => n %% {AGES}, "
            f"hours => 1), 'user-' || n, {conversation} FROM generate_series(0, %s - 1) AS n, "
            "(SELECT %s::int AS last, now() - interval '200 days' AS past) AS t".encode(),
            (rows.users, 2 * rows.turns),
        )
        # An index is built in one go, much faster than row by row.
        name = connection.execute(
            "SELECT conname FROM pg_constraint "
            "WHERE conrelid = 'messages'::regclass AND contype = 'p'"
        ).fetchone()
        assert name is not None
        execute(f"ALTER TABLE messages DROP CONSTRAINT {name[0]}".encode())
        for turn in range(rows.turns):
            execute(
                f"INSERT INTO {messages} SELECT now() - interval '100 days', 'user-' || n, "
                f"{session} {_MESSAGE} FROM generate_series(0, %s - 1) AS n, "
                "generate_series(0, 1) AS side, "
                "(SELECT %s::int AS turn, %s::text AS padding) AS t".encode(),
                (rows.users, turn, PADDING),
            )
        execute(f"ALTER TABLE messages ADD CONSTRAINT {name[0]} {key}".encode())
        execute("VACUUM (ANALYZE) conversations, messages")


def _populate_sqlite(path: str, rows: Rows, tables: tuple[str, ...]) -> None:
    conversations, conversation, messages, session, _ = tables
    users = "WITH RECURSIVE u (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM u WHERE n < ? - 1)"
    time = "strftime('%Y-%m-%d %H:%M:%f000', 'now'"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        execute = connection.execute
        for pragma in ("synchronous=OFF", "foreign_keys=OFF", "cache_size=-2000000"):
            execute(f"PRAGMA {pragma}")
        execute("BEGIN")
        for statement in raw_sqlite.TABLES:  # ours are there already
            execute(statement)
        execute(
            f"{users} INSERT INTO {conversations} "
            f"SELECT {time}, '-1 hour', '-' || (n % {AGES}) || ' days'), 'user-' || n, "
            f"{conversation} FROM u, (SELECT ? AS last, {time}, '-200 days') AS past)",
            (rows.users, 2 * rows.turns),
        )
        for turn in range(rows.turns):
            execute(
                f"{users} INSERT INTO {messages} SELECT {time}, '-100 days'), 'user-' || n, "
                f"{session} {_MESSAGE} FROM u, (SELECT 0 AS side UNION ALL SELECT 1), "
                "(SELECT ? AS turn, ? AS padding)",
                (rows.users, turn, PADDING),
            )
        execute("COMMIT")
        execute("PRAGMA wal_checkpoint(TRUNCATE)")
        execute("ANALYZE")
