"""What a batch does when its database fails, or what it needs can't be read."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any, Final

import aiosqlite
import pytest

from agno_sql.errors import CorruptRecordError, OutcomeUnknownError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall
from agno_sql.store.engine import open_engine

EXECUTE: Final = aiosqlite.Connection.execute_fetchall


async def test_a_prune_that_meets_a_row_that_cannot_be_decoded_stores_nothing(
    database_url: str,
) -> None:
    """A result by itself at capacity: the call that it answers has to be looked for."""
    called = Message.assistant("", [ToolCall("c1", "look", "{}")])
    async with SQLMemory.open(database_url, capacity=2) as memory:
        await memory.extend([Message.user("hi"), called], "alice")
        broken = (
            "UPDATE messages SET tool_calls = '[{\"id\": 1}]' WHERE user_id = 'alice' AND seq = 2"
        )
        engine = open_engine(database_url)
        async with engine.begin() as conn:
            await conn.exec_driver_sql(broken)
        await engine.dispose()
        with pytest.raises(CorruptRecordError, match="message 2 of user 'alice'"):
            await memory.add(Message.tool("seen", tool_call_id="c1"), "alice")
        assert await memory.size("alice") == 2


def failed(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("failed")
    error.sqlite_errorcode = code
    return error


async def test_a_disk_that_fails_at_commit_leaves_the_outcome_of_all_unknown_on_sqlite(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(connection: aiosqlite.Connection, sql: str, *args: Any) -> Any:
        rows = await EXECUTE(connection, sql, *args)
        if sql == "COMMIT":
            raise failed(sqlite3.SQLITE_IOERR)
        return rows

    async with SQLMemory.open(sqlite_url) as memory:
        with monkeypatch.context() as patch:
            patch.setattr(aiosqlite.Connection, "execute_fetchall", fail)
            adds = [memory.add(Message.user("hi"), user) for user in ("alice", "bob")]
            outcomes = await asyncio.gather(*adds, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OutcomeUnknownError] * 2
        assert outcomes[0] is not outcomes[1]
        assert (await memory.add(Message.user("on"), "alice")).seq == 2


async def test_a_commit_that_is_refused_is_made_again_by_each_write_itself_on_sqlite(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(connection: aiosqlite.Connection, sql: str, *args: Any) -> Any:
        if sql == "COMMIT":
            raise failed(sqlite3.SQLITE_FULL)
        return await EXECUTE(connection, sql, *args)

    async with SQLMemory.open(sqlite_url) as memory:
        monkeypatch.setattr(aiosqlite.Connection, "execute_fetchall", refuse)
        adds = [memory.add(Message.user("hi"), user) for user in ("alice", "bob")]
        assert [stored.seq for stored in await asyncio.gather(*adds)] == [1, 1]
        assert await memory.size("alice") == 1
