"""Everything that is measured: the store, other libraries, and code without any library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["ours", "peer", "floor"]
DATABASES: Final = ("postgresql", "sqlite")


@dataclass(frozen=True, slots=True)
class Entry:
    """One driver on one database, and the environment that has what it imports.

    ``chat`` is the library's own way to run an agent, where it has one.
    """

    key: str
    title: str
    role: Role
    database: str
    driver: str
    environment: str = "project"
    chat: str | None = None


def _ours(database: str) -> Entry:
    return Entry(
        "ours",
        "agno_sql",
        "ours",
        database,
        "benchmarks.drivers.ours:Ours",
        chat="benchmarks.drivers.our_agent:OurAgent",
    )


def _raw(database: str, key: str, title: str, driver: str) -> Entry:
    return Entry(key, title, "floor", database, f"benchmarks.drivers.{driver}")


def _peer(
    database: str,
    key: str,
    title: str,
    driver: str,
    *,
    environment: str = "agents",
    chat: str | None = None,
) -> Entry:
    return Entry(
        key,
        title,
        "peer",
        database,
        f"benchmarks.peers.{driver}",
        environment,
        chat and f"benchmarks.peers.{chat}",
    )


_PG: Final = "postgresql"
_LITE: Final = "sqlite"
POSTGRES_GROUP: Final = "asyncpg-group-reads"
POSTGRES_STATEMENT: Final = "asyncpg-statement"
SQLITE_GROUP: Final = "aiosqlite-group"

ENTRIES: Final = (
    _ours(_PG),
    _raw(_PG, "asyncpg-insert", "asyncpg, INSERT per message", "raw_postgres:InsertPerMessage"),
    _raw(_PG, POSTGRES_STATEMENT, "asyncpg, one statement", "raw_postgres:OneStatement"),
    _raw(_PG, "asyncpg-group", "asyncpg, group commit", "raw_postgres:GroupCommit"),
    _raw(_PG, POSTGRES_GROUP, "asyncpg, group + reads", "raw_postgres:GroupCommitAndReads"),
    _ours(_LITE),
    _raw(
        _LITE, "aiosqlite-insert", "aiosqlite, INSERT per message", "raw_aiosqlite:InsertPerMessage"
    ),
    _raw(_LITE, "sqlite3-blocking", "sqlite3, blocks the loop", "raw_sqlite:Blocking"),
    _raw(_LITE, "sqlite3-thread", "sqlite3, one thread", "raw_sqlite:OneThread"),
    _raw(_LITE, SQLITE_GROUP, "aiosqlite, group + reads", "raw_aiosqlite:Group"),
    _raw(_LITE, "sqlite3-group", "sqlite3, one thread, group + reads", "raw_sqlite:OneThreadGroup"),
)


def entry(database: str, key: str) -> Entry:
    """Return the entry of that name on that database; KeyError if there is none."""
    for found in ENTRIES:
        if (found.database, found.key) == (database, key):
            return found
    raise KeyError(key)
