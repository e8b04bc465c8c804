"""The caller's own engine, with whatever settings it has."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agno_sql.errors import InvalidOptionError, StoreError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.store.database import Database
from agno_sql.store.migrate import upgrade
from tests.faults.checks import sync_url
from tests.support.clock import FakeClock
from tests.support.statements import statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from sqlalchemy import URL, Connection


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


@pytest.mark.guarantee("G15")
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


@pytest.mark.parametrize("moment", ["connect", "checkout"])
async def test_what_is_acknowledged_is_stored_where_a_hook_has_begun_a_transaction(
    database_url: str, moment: str
) -> None:
    async with SQLMemory.open(database_url):
        pass
    engine = create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, moment)
    def begin(connection: Any, *_: object) -> None:
        """Set something, by a cursor that begins a transaction which nobody ends."""
        cursor = connection.cursor()
        is_sqlite = engine.dialect.name == "sqlite"
        cursor.execute("BEGIN" if is_sqlite else "SET application_name = 'host'")
        cursor.close()

    memory = SQLMemory(engine)
    adds = [memory.add(Message.user(str(n)), f"user-{n % 3}") for n in range(12)]
    acknowledged = await asyncio.gather(*adds)
    read = await asyncio.gather(*(memory.get_messages(f"user-{user}") for user in range(3)))
    await engine.dispose()
    assert read == [sorted(acknowledged[user::3], key=by_seq) for user in range(3)]
    async with SQLMemory.open(database_url) as another:
        assert [await another.get_messages(f"user-{user}") for user in range(3)] == read


async def test_what_each_connection_is_told_at_first_holds_for_batches_too(
    postgres_url: str,
) -> None:
    """As the schema of a host that has one for each of its tenants."""
    in_chat = {"server_settings": {"search_path": "chat"}}
    chat = create_async_engine(postgres_url, connect_args=in_chat)
    async with chat.begin() as conn:
        await conn.execute(text("CREATE SCHEMA chat"))
    await Database(chat).write(upgrade)
    engine = create_async_engine(postgres_url)

    @event.listens_for(engine.sync_engine, "engine_connect")
    def look_there(conn: Connection) -> None:
        conn.exec_driver_sql("SET search_path TO chat")
        conn.commit()

    memory, there = SQLMemory(engine), SQLMemory(chat)
    users = [f"user-{n}" for n in range(5)]
    await asyncio.gather(*(memory.add(Message.user("hi"), user) for user in users))
    many = [Message.user("hi")] * 101  # more than a batch takes
    await memory.extend(many, "many")
    assert [await there.size(user) for user in users] == [1] * 5
    assert [len(await memory.get_messages(user)) for user in users] == [1] * 5
    assert await there.size("many") == await memory.size("many") == 100
    async with SQLMemory.open(postgres_url) as elsewhere:
        assert await elsewhere.inactive_users(timedelta(0)) == []
    await engine.dispose()
    await chat.dispose()


def by_seq(message: Message) -> int:
    return message.seq or 0


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


def test_one_connection_shared_by_all_tasks_is_refused() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(InvalidOptionError, match="StaticPool"):
        SQLMemory(engine)


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "REPEATABLE READ", "SERIALIZABLE"])
class TestOnPostgreSQLAtAnotherIsolationLevel:
    @pytest.fixture
    async def engine(self, postgres_url: str, level: str) -> AsyncIterator[AsyncEngine]:
        engine = create_async_engine(postgres_url, isolation_level=level)
        yield engine
        await engine.dispose()

    async def test_a_failed_extend_leaves_nothing(self, engine: AsyncEngine) -> None:
        memory = SQLMemory(engine)
        async with engine.begin() as conn:
            await conn.execute(
                text("ALTER TABLE messages ADD CONSTRAINT no_no CHECK (content <> 'no')")
            )
        with pytest.raises(StoreError, match="refused"):
            await memory.extend([Message.user("yes"), Message.user("no")], "alice")
        assert await memory.size("alice") == 0
        assert (await memory.add(Message.user("yes"), "alice")).seq == 1

    async def test_concurrent_adds_all_succeed_within_the_capacity(
        self, engine: AsyncEngine
    ) -> None:
        memory = SQLMemory(engine, capacity=10)
        await asyncio.gather(*(memory.add(Message.user("x"), "alice") for _ in range(50)))
        stored = await memory.get_messages("alice")
        assert [m.seq for m in stored] == list(range(41, 51))

    async def test_a_user_who_comes_back_in_a_new_session_is_kept_whole(
        self, engine: AsyncEngine
    ) -> None:
        clock = FakeClock()
        memory = SQLMemory(engine, clock=clock)
        await memory.add(Message.user("old"), "alice", session_id="a")
        clock.advance(timedelta(days=40))

        came_back: list[str] = []

        def come_back(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            """Begin a session in another transaction once the clean-up's has begun."""
            if statement.startswith("DELETE FROM conversations") and not came_back:
                came_back.append("b")
                add_a_session(engine.url, clock.now())

        event.listen(engine.sync_engine, "before_cursor_execute", come_back)
        assert await memory.delete_inactive(timedelta(days=30)) == 0
        assert came_back
        assert await memory.size("alice", session_id="a") == 1


def add_a_session(url: URL, at: datetime) -> None:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as other:
        other.execute("INSERT INTO conversations VALUES ('alice', 'b', 1, 0, 0, %s, %s)", [at, at])


@pytest.mark.parametrize("failure", [OSError("gone"), sqlite3.OperationalError("gone")])
@pytest.mark.parametrize("count", [1, 101], ids=["in a batch", "by itself"])
async def test_what_fails_after_the_commit_repeats_nothing(
    database_url: str, count: int, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLMemory.open(database_url):
        pass
    engine = create_async_engine(database_url)
    memory = SQLMemory(engine, capacity=None)
    await memory.add(Message.user("first"), "alice")
    failed: list[bool] = []

    @event.listens_for(engine.sync_engine, "checkin")
    def fail(_connection: object, _entry: object) -> None:
        if not failed:
            failed.append(True)
            raise failure

    stored = await memory.extend([Message.user("second")] * count, "alice")
    assert failed
    assert [m.seq for m in stored] == list(range(2, count + 2))
    kept = [m.content for m in await memory.get_messages("alice")]
    assert kept == ["first", *["second"] * count]
    assert "failed when it was handed back" in caplog.text
    await engine.dispose()


def test_an_engine_serves_one_event_loop_after_another(sqlite_url: str) -> None:
    async def make_tables() -> None:
        async with SQLMemory.open(sqlite_url):
            pass

    async def add_many() -> None:
        await asyncio.gather(*(memory.add(Message.user("x"), "alice") for _ in range(10)))

    asyncio.run(make_tables())
    memory = SQLMemory(create_async_engine(sqlite_url, poolclass=NullPool))
    asyncio.run(add_many())
    asyncio.run(add_many())
    assert asyncio.run(memory.size("alice")) == 20


async def test_a_memory_whose_block_has_ended_refuses_everything(database_url: str) -> None:
    async with SQLMemory.open(database_url) as memory:
        await memory.add(Message.user("x"), "alice")
    with pytest.raises(StoreError, match="closed"):
        await memory.add(Message.user("y"), "alice")
    with pytest.raises(StoreError, match="closed"):
        await memory.get_messages("alice")


async def test_a_memory_that_is_closed_lets_the_batch_that_is_under_way_end(
    database_url: str,
) -> None:
    begun = asyncio.Event()

    def notice(sql: str) -> None:
        if sql.startswith(("WITH given AS", "BEGIN IMMEDIATE")):
            begun.set()

    async with SQLMemory.open(database_url) as memory:
        with statements(notice):
            add = asyncio.create_task(memory.add(Message.user("x"), "alice"))
            await begun.wait()
    assert (await add).seq == 1


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


@pytest.mark.guarantee("G6")
async def test_own_connections_are_as_durable_as_they_promise(sqlite_url: str) -> None:
    from agno_sql.store.engine import open_engine

    engine = open_engine(sqlite_url)
    async with engine.connect() as conn:
        assert await conn.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await conn.scalar(text("PRAGMA synchronous")) == 2
        assert await conn.scalar(text("PRAGMA foreign_keys")) == 1
    await engine.dispose()


async def test_an_engine_that_keeps_the_tables_in_another_schema_is_followed(
    postgres_url: str,
) -> None:
    async with SQLMemory.open(postgres_url, migrate=True):
        pass
    tables = ("conversations", "messages", "runs")
    with psycopg.connect(sync_url(postgres_url), autocommit=True) as server:
        server.execute("CREATE SCHEMA chat")
        for table in tables:
            server.execute(f"CREATE TABLE chat.{table} (LIKE public.{table} INCLUDING ALL)")
    engine = create_async_engine(
        postgres_url, execution_options={"schema_translate_map": {None: "chat"}}
    )
    memory = SQLMemory(engine)

    await memory.add(Message.user("hello"), "alice")
    (message,) = await memory.get_messages("alice")

    assert message.content == "hello"
    with psycopg.connect(sync_url(postgres_url)) as server:
        assert server.execute("SELECT count(*) FROM chat.messages").fetchone() == (1,)
        assert server.execute("SELECT count(*) FROM public.messages").fetchone() == (0,)
    await engine.dispose()
