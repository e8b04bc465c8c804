"""The caller's own engine, with whatever settings it has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agno_sql.errors import InvalidOptionError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable


def plain(url: str) -> AsyncEngine:
    return create_async_engine(url)


def with_a_begin_hook(url: str) -> AsyncEngine:
    engine = create_async_engine(url)

    @event.listens_for(engine.sync_engine, "connect")
    def no_driver_begin(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def in_autocommit(url: str) -> AsyncEngine:
    return create_async_engine(url, isolation_level="AUTOCOMMIT")


@pytest.mark.parametrize("make", [plain, with_a_begin_hook, in_autocommit])
async def test_no_update_is_lost_whatever_the_engine_does(
    sqlite_url: str, make: Callable[[str], AsyncEngine]
) -> None:
    async with SQLMemory.open(sqlite_url):
        pass
    first, second = make(sqlite_url), make(sqlite_url)
    memories = [SQLMemory(first), SQLMemory(second)]

    await asyncio.gather(
        *(memories[n % 2].add(Message.user(str(n)), f"user-{n % 3}") for n in range(60))
    )

    for user in range(3):
        stored = await memories[0].get_messages(f"user-{user}")
        assert [m.seq for m in stored] == list(range(1, 21))
        assert {m.content for m in stored} == {str(n) for n in range(60) if n % 3 == user}
    await first.dispose()
    await second.dispose()


@pytest.mark.parametrize("make", [plain, with_a_begin_hook])
async def test_a_failed_write_leaves_nothing_and_a_usable_engine(
    sqlite_url: str, make: Callable[[str], AsyncEngine]
) -> None:
    async with SQLMemory.open(sqlite_url):
        pass
    engine = make(sqlite_url)
    memory = SQLMemory(engine)
    async with engine.begin() as conn:
        await conn.execute(
            text(
                "CREATE TRIGGER full_up BEFORE INSERT ON messages WHEN new.content = 'no' "
                "BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        )
    with pytest.raises(Exception, match="refused"):
        await memory.extend([Message.user("yes"), Message.user("no")], "alice")
    assert await memory.size("alice") == 0
    assert (await memory.add(Message.user("yes"), "alice")).seq == 1
    await engine.dispose()


async def test_users_are_deleted_with_their_messages_where_foreign_keys_are_off(
    sqlite_url: str,
) -> None:
    async with SQLMemory.open(sqlite_url):
        pass
    engine = plain(sqlite_url)
    memory = SQLMemory(engine)
    for user in ("alice", "bob", "carol"):
        await memory.extend([Message.user("hi"), Message.assistant("hello")], user)

    assert await memory.erase("alice") == 2
    async with engine.connect() as conn:
        assert await conn.scalar(text("PRAGMA foreign_keys")) == 0, "nothing would be tested"
        left = await conn.scalars(
            text("SELECT DISTINCT user_id FROM messages WHERE user_id IN ('alice','bob','carol')")
        )
        assert set(left) == {"bob", "carol"}
    await memory.clear_all()
    async with engine.connect() as conn:
        query = "SELECT count(*) FROM messages WHERE user_id IN ('alice','bob','carol')"
        assert await conn.scalar(text(query)) == 0
    await engine.dispose()


async def test_one_shared_connection_serves_concurrent_tasks() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as conn:
        from agno_sql.store.migrate import upgrade

        await upgrade(conn)
    memory = SQLMemory(engine)

    async def write_and_read(n: int) -> None:
        await memory.add(Message.user(str(n)), "alice")
        assert str(n) in {m.content for m in await memory.get_messages("alice")}

    await asyncio.gather(*(write_and_read(n) for n in range(30)))

    assert [m.seq for m in await memory.get_messages("alice")] == list(range(1, 31))
    await engine.dispose()


async def test_the_callers_engine_stays_open(sqlite_url: str) -> None:
    async with SQLMemory.open(sqlite_url):
        pass
    engine = plain(sqlite_url)
    await SQLMemory(engine).add(Message.user("hi"), "alice")
    async with engine.connect() as conn:
        assert await conn.scalar(text("SELECT 1")) == 1
    await engine.dispose()


async def test_an_in_memory_database_is_one_database_for_all_tasks() -> None:
    async with SQLMemory.open("sqlite://") as memory:
        await asyncio.gather(*(memory.add(Message.user("x"), "alice") for _ in range(30)))
        assert await memory.size("alice") == 30


@pytest.mark.parametrize("engine", [None, "sqlite:///chat.db", object()])
def test_what_is_no_asynchronous_engine_is_refused(engine: Any) -> None:
    with pytest.raises(InvalidOptionError, match="AsyncEngine"):
        SQLMemory(engine)


async def test_own_connections_are_as_durable_as_they_promise(sqlite_url: str) -> None:
    from agno_sql.store.engine import open_engine

    engine = open_engine(sqlite_url)
    async with engine.connect() as conn:
        assert await conn.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await conn.scalar(text("PRAGMA synchronous")) == 2
        assert await conn.scalar(text("PRAGMA foreign_keys")) == 1
    await engine.dispose()
