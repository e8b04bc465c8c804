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


def _llama(database: str, key: str, title: str, driver: str, chat: str) -> Entry:
    return _peer(
        database,
        key,
        title,
        f"llama_index:{driver}",
        environment="llama_index",
        chat=f"llama_index:{chat}",
    )


_PG: Final = "postgresql"
_LITE: Final = "sqlite"
POSTGRES_GROUP: Final = "asyncpg-group-reads"
POSTGRES_STATEMENT: Final = "asyncpg-statement"
SQLITE_GROUP: Final = "aiosqlite-group"
_OPENAI: Final = "openai-agents"
_LANG: Final = "langchain-community"

_POSTGRES: Final = (
    _ours(_PG),
    _peer(
        _PG,
        _OPENAI,
        "openai-agents SQLAlchemySession",
        "openai_agents:SQLAlchemy",
        chat="openai_agents:SQLAlchemyRunner",
    ),
    _peer(
        _PG,
        "langchain-postgres",
        "langchain-postgres history",
        "langchain:Postgres",
        chat="langchain:PostgresRunnable",
    ),
    _peer(
        _PG,
        _LANG,
        "langchain-community SQL history",
        "langchain:SQL",
        chat="langchain:SQLRunnable",
    ),
    _peer(
        _PG,
        "google-adk",
        "google-adk DatabaseSessionService",
        "google_adk:Database",
        chat="google_adk:DatabaseRunner",
    ),
    _peer(_PG, "agno", "agno AsyncPostgresDb", "agno:Database", chat="agno:AgentRunner"),
    _llama(_PG, "llama-index", "llama-index PostgresChatStore", "ChatStore", "StoreEngine"),
    _llama(
        _PG,
        "llama-index-core",
        "llama-index SQLAlchemyChatStore",
        "SQLAlchemy",
        "SQLAlchemyEngine",
    ),
    _raw(_PG, "asyncpg-insert", "asyncpg, INSERT per message", "raw_postgres:InsertPerMessage"),
    _raw(_PG, POSTGRES_STATEMENT, "asyncpg, one statement", "raw_postgres:OneStatement"),
    _raw(_PG, "asyncpg-group", "asyncpg, group commit", "raw_postgres:GroupCommit"),
    _raw(_PG, POSTGRES_GROUP, "asyncpg, group + reads", "raw_postgres:GroupCommitAndReads"),
)
_SQLITE: Final = (
    _ours(_LITE),
    _peer(
        _LITE,
        "openai-agents-sqlite",
        "openai-agents SQLiteSession",
        "openai_agents:SQLite",
        chat="openai_agents:SQLiteRunner",
    ),
    _peer(
        _LITE,
        "openai-agents-async",
        "openai-agents AsyncSQLiteSession",
        "openai_agents:AsyncSQLite",
    ),
    _peer(
        _LITE,
        _OPENAI,
        "openai-agents SQLAlchemySession",
        "openai_agents:SQLAlchemy",
        chat="openai_agents:SQLAlchemyRunner",
    ),
    _peer(
        _LITE,
        "langchain-blocking",
        "langchain-community, blocks the loop",
        "langchain:BlockingSQL",
    ),
    _peer(
        _LITE,
        _LANG,
        "langchain-community SQL history",
        "langchain:SQL",
        chat="langchain:SQLRunnable",
    ),
    _peer(
        _LITE,
        "google-adk",
        "google-adk DatabaseSessionService",
        "google_adk:Database",
        chat="google_adk:DatabaseRunner",
    ),
    _peer(
        _LITE,
        "google-adk-sqlite",
        "google-adk SqliteSessionService",
        "google_adk:SQLite",
        chat="google_adk:SQLiteRunner",
    ),
    _peer(_LITE, "agno", "agno AsyncSqliteDb", "agno:Database", chat="agno:AgentRunner"),
    _llama(_LITE, "llama-index", "llama-index SQLiteChatStore", "ChatStore", "StoreEngine"),
    _llama(
        _LITE,
        "llama-index-core",
        "llama-index SQLAlchemyChatStore",
        "SQLAlchemy",
        "SQLAlchemyEngine",
    ),
    _raw(
        _LITE, "aiosqlite-insert", "aiosqlite, INSERT per message", "raw_aiosqlite:InsertPerMessage"
    ),
    _raw(_LITE, "sqlite3-blocking", "sqlite3, blocks the loop", "raw_sqlite:Blocking"),
    _raw(_LITE, "sqlite3-thread", "sqlite3, one thread", "raw_sqlite:OneThread"),
    _raw(_LITE, SQLITE_GROUP, "aiosqlite, group + reads", "raw_aiosqlite:Group"),
    _raw(_LITE, "sqlite3-group", "sqlite3, thread, group + reads", "raw_sqlite:OneThreadGroup"),
)
ENTRIES: Final = (*_POSTGRES, *_SQLITE)
