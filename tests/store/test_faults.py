"""What callers are told when the database does not do what it is asked."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from agno_sql.errors import (
    CorruptRecordError,
    OutcomeUnknownError,
    SchemaOutOfDateError,
    StoreError,
    StoreUnavailableError,
)
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.store.database import Database
from agno_sql.store.engine import open_engine

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection


def sync_url(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def test_an_unreachable_server_is_named_without_its_password() -> None:
    url = "postgresql://alice:s3cret@127.0.0.1:1/nowhere"
    with pytest.raises(StoreUnavailableError) as caught:
        async with SQLMemory.open(url):
            pass
    assert caught.value.retryable
    assert "127.0.0.1:1/nowhere" in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_database_that_does_not_exist_is_named(postgres_url: str) -> None:
    missing = make_url(postgres_url).set(database="not_there")
    with pytest.raises(StoreUnavailableError, match=r"3D000.*not_there"):
        async with SQLMemory.open(missing):
            pass


async def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match=r"nowhere does not exist"):
        async with SQLMemory.open(f"sqlite:///{tmp_path}/nowhere/chat.db"):
            pass


async def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but dear to somebody\n" * 100)
    before = file.read_bytes()
    with pytest.raises(StoreUnavailableError, match="SQLite file"):
        async with SQLMemory.open(f"sqlite:///{file}"):
            pass
    assert file.read_bytes() == before


async def test_postgres_is_only_checked_unless_told_to_upgrade(empty_postgres_url: str) -> None:
    with pytest.raises(SchemaOutOfDateError, match="agno-sql db upgrade"):
        async with SQLMemory.open(empty_postgres_url):
            pass
    async with SQLMemory.open(empty_postgres_url, migrate=True) as memory:
        await memory.add(Message.user("hello"), "alice")
    async with SQLMemory.open(empty_postgres_url) as memory:
        assert await memory.size("alice") == 1


async def test_sqlite_is_not_upgraded_where_that_is_forbidden(sqlite_url: str) -> None:
    with pytest.raises(SchemaOutOfDateError, match="agno-sql db upgrade"):
        async with SQLMemory.open(sqlite_url, migrate=False):
            pass
    async with SQLMemory.open(sqlite_url):
        pass
    async with SQLMemory.open(sqlite_url, migrate=False) as memory:
        assert await memory.size("alice") == 0


async def test_a_schema_from_the_future_is_not_touched(database_url: str) -> None:
    async with SQLMemory.open(database_url):
        pass
    engine = open_engine(database_url)
    async with engine.begin() as conn:
        await conn.execute(text("UPDATE agno_sql_version SET version_num = '9999'"))
    await engine.dispose()
    for migrate in (None, True, False):
        with pytest.raises(SchemaOutOfDateError, match=r"newer.*pip install -U agno-sql"):
            async with SQLMemory.open(database_url, migrate=migrate):
                pass


async def test_a_callers_engine_without_tables_is_told_the_command(
    empty_postgres_url: str, sqlite_url: str
) -> None:
    for url in (empty_postgres_url, sqlite_url):
        engine = create_async_engine(url)
        memory = SQLMemory(engine)
        with pytest.raises(SchemaOutOfDateError, match="agno-sql db upgrade"):
            await memory.add(Message.user("hello"), "alice")
        with pytest.raises(SchemaOutOfDateError, match="agno-sql db upgrade"):
            await memory.get_messages("alice")
        await engine.dispose()


async def test_a_statement_the_database_refuses_stores_nothing(database_url: str) -> None:
    async with SQLMemory.open(database_url):
        pass
    engine = open_engine(database_url)
    database = Database(engine)

    async def two_statements(conn: AsyncConnection) -> None:
        await conn.execute(
            text(
                "INSERT INTO conversations VALUES ('alice', 's', 1, 0, 0, "
                "'2026-01-01 00:00:00', '2026-01-01 00:00:00')"
            )
        )
        await conn.execute(
            text("UPDATE conversations SET message_count = -1 WHERE user_id='alice'")
        )

    with pytest.raises(StoreError, match="refused") as caught:
        await database.write(two_statements)
    assert not caught.value.retryable
    left = await database.read(
        lambda conn: conn.scalar(text("SELECT count(*) FROM conversations WHERE user_id = 'alice'"))
    )
    assert left == 0
    await engine.dispose()


async def test_a_statement_that_is_wrong_is_not_blamed_on_the_schema(database_url: str) -> None:
    async with SQLMemory.open(database_url):
        pass
    engine = open_engine(database_url)
    with pytest.raises(StoreError, match="refused") as caught:
        await Database(engine).read(lambda conn: conn.execute(text("SELECT * FROM not_there")))
    assert not isinstance(caught.value, SchemaOutOfDateError)
    await engine.dispose()


@pytest.mark.guarantee("G17")
async def test_a_deadlock_is_tried_again_and_both_writers_succeed(postgres_url: str) -> None:
    async with SQLMemory.open(postgres_url) as memory:
        for user in ("alice", "bob"):
            await memory.add(Message.user("hi"), user)
    engine = open_engine(postgres_url)
    database = Database(engine)
    both_hold_one = asyncio.Barrier(2)
    attempts = 0

    async def raise_both(first: str, second: str) -> None:
        async def work(conn: AsyncConnection) -> None:
            nonlocal attempts
            attempts += 1
            for user in (first, second):
                await conn.execute(
                    text("UPDATE conversations SET last_seq = last_seq + 10 WHERE user_id = :user"),
                    {"user": user},
                )
                if user == first and attempts <= 2:
                    await both_hold_one.wait()

        await database.write(work)

    await asyncio.gather(raise_both("alice", "bob"), raise_both("bob", "alice"))

    seqs = await database.read(
        lambda conn: conn.execute(
            text("SELECT last_seq FROM conversations WHERE user_id IN ('alice', 'bob')")
        )
    )
    assert seqs.scalars().all() == [21, 21]
    assert attempts >= 3, "there was no deadlock to recover from"
    await engine.dispose()


@pytest.mark.guarantee("G17")
@pytest.mark.usefixtures("way")
async def test_connections_cut_by_the_server_are_replaced_without_an_error(
    postgres_url: str,
) -> None:
    async with SQLMemory.open(postgres_url) as memory:
        await memory.add(Message.user("before"), "alice")
        with psycopg.connect(sync_url(postgres_url), autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        # A read notices it. An add that went first could not know that its statement came late.
        assert [m.content for m in await memory.get_messages("alice")] == ["before"]
        await memory.add(Message.user("after"), "alice")
        assert [m.content for m in await memory.get_messages("alice")] == ["before", "after"]


@pytest.mark.guarantee("G17")
async def test_a_connection_that_breaks_at_commit_leaves_the_outcome_unknown(
    postgres_url: str,
) -> None:
    engine = open_engine(postgres_url)

    async def cut_before_commit(conn: AsyncConnection) -> None:
        pid = await conn.scalar(text("SELECT pg_backend_pid()"))
        with psycopg.connect(sync_url(postgres_url), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    with pytest.raises(OutcomeUnknownError, match="read what is stored") as caught:
        await Database(engine).write(cut_before_commit)
    assert not caught.value.retryable
    await engine.dispose()


@pytest.mark.usefixtures("way")
async def test_ddl_elsewhere_does_not_break_a_prepared_statement(postgres_url: str) -> None:
    async with SQLMemory.open(postgres_url) as memory:
        await memory.add(Message.user("hello"), "alice")
        for _ in range(3):
            await memory.get_messages("alice")
        with psycopg.connect(sync_url(postgres_url), autocommit=True) as admin:
            admin.execute("ALTER TABLE messages ALTER COLUMN run_id TYPE varchar(200)")
        assert [m.content for m in await memory.get_messages("alice")] == ["hello"]


async def test_a_database_locked_for_good_is_told_as_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agno_sql.store.database._RETRY_FOR_S", 0.5)
    file = tmp_path / "chat.db"
    async with SQLMemory.open(f"sqlite:///{file}"):
        pass
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", connect_args={"timeout": 0})
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="SQLITE_BUSY") as caught:
        await SQLMemory(engine).add(Message.user("hello"), "alice")
    assert caught.value.retryable
    holder.execute("ROLLBACK")
    stored = await SQLMemory(engine).add(Message.user("hello"), "alice")
    assert stored.seq == 1
    holder.close()
    await engine.dispose()


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE messages SET content = content || char(16) || 'zz' WHERE user_id = 'alice'",
        "UPDATE messages SET tool_calls = '[{\"id\": 1}]' WHERE user_id = 'alice'",
        "UPDATE messages SET tool_calls = '{broken' WHERE user_id = 'alice'",
        "UPDATE messages SET created_at = 'yesterday' WHERE user_id = 'alice'",
        "UPDATE messages SET run_id = 'a b' WHERE user_id = 'alice'",
    ],
)
async def test_a_row_that_cannot_be_decoded_is_named_and_never_skipped(
    tmp_path: Path, change: str
) -> None:
    file = tmp_path / "chat.db"
    async with SQLMemory.open(f"sqlite:///{file}") as memory:
        await memory.extend([Message.assistant("hello")], "alice", session_id="work")
        with sqlite3.connect(file) as other:
            other.execute(change)
        other.close()
        with pytest.raises(CorruptRecordError, match="message 1 of user 'alice', session 'work'"):
            await memory.get_messages("alice", session_id="work")


async def test_a_pool_without_a_free_connection_is_told_as_busy(database_url: str) -> None:
    async with SQLMemory.open(database_url):
        pass
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    memory = SQLMemory(engine)
    async with engine.connect():
        with pytest.raises(StoreUnavailableError, match="too busy"):
            await memory.size("alice")
    assert await memory.size("alice") == 0
    await engine.dispose()


async def test_a_wait_for_a_locked_file_can_be_cancelled_at_once(tmp_path: Path) -> None:
    file = tmp_path / "chat.db"
    async with SQLMemory.open(f"sqlite:///{file}") as memory:
        with closing(sqlite3.connect(file, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await memory.add(Message.user("hello"), "alice")
            holder.execute("ROLLBACK")
        assert (await memory.add(Message.user("hello"), "alice")).seq == 1


@pytest.mark.parametrize(
    "sqlstate, error",
    [
        ("57014", OutcomeUnknownError),
        ("58030", OutcomeUnknownError),
        ("XX000", OutcomeUnknownError),
        ("23514", StoreError),
        ("40001", StoreUnavailableError),
    ],
)
async def test_an_error_at_commit_says_nothing_was_stored_only_where_that_is_sure(
    postgres_url: str,
    sqlstate: str,
    error: type[StoreError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agno_sql.store.database._RETRY_FOR_S", 0.0)
    with psycopg.connect(sync_url(postgres_url), autocommit=True) as admin:
        admin.execute(
            f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ "
            f"BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$"
        )
        admin.execute(
            "CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON messages "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()"
        )
    async with SQLMemory.open(postgres_url) as memory:
        with pytest.raises(StoreError) as caught:
            await memory.add(Message.user("hello"), "alice")
        assert type(caught.value) is error
        assert await memory.size("alice") == 0


async def test_a_statement_that_takes_too_long_is_abandoned_when_cancelled(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agno_sql.settled._SETTLE_FOR_S", 0.0)
    engine = create_async_engine(postgres_url, pool_size=1, max_overflow=0)
    database = Database(engine)
    has_begun = asyncio.Event()

    async def sleep(conn: AsyncConnection) -> None:
        await conn.scalar(text("SELECT 1"))
        has_begun.set()
        await conn.execute(text("SELECT pg_sleep(100)"))

    task = asyncio.create_task(database.read(sleep))
    await has_begun.wait()
    task.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await task
        # Its connection is free again, or has been replaced.
        assert await database.read(lambda conn: conn.scalar(text("SELECT 1"))) == 1
    await engine.dispose()


async def test_a_constraint_that_fails_at_commit_stores_nothing_on_sqlite(sqlite_url: str) -> None:
    async with SQLMemory.open(sqlite_url):
        pass
    engine = open_engine(sqlite_url)
    database = Database(engine)

    async def orphan(conn: AsyncConnection) -> None:
        await conn.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        await conn.exec_driver_sql(
            "INSERT INTO messages (user_id, session_id, seq, role, content, created_at) "
            "VALUES ('alice', 's', 1, 'user', 'x', '2026-01-01 00:00:00')"
        )

    with pytest.raises(StoreError, match="refused"):
        await database.write(orphan)
    left = await database.read(
        lambda conn: conn.scalar(text("SELECT count(*) FROM messages WHERE user_id = 'alice'"))
    )
    assert left == 0
    await engine.dispose()
