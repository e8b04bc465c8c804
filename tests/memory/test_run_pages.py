"""Which runs a user has, page by page."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from agno_sql.errors import CorruptRecordError, InvalidOptionError, InvalidUserIdError
from agno_sql.memory.sql import SQLMemory
from agno_sql.runs import RunFilter
from tests.agent.models import ScriptedModel, agent_of
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


async def run_ids(
    memory: SQLMemory, wanted: RunFilter | None = None, *, limit: int = 2
) -> list[list[str]]:
    """Return the ids of alice's runs, page by page."""
    pages: list[list[str]] = []
    after = None
    while page := await memory.runs("alice", wanted, limit=limit, after=after):
        pages.append([record.run_id for record in page])
        after = page[-1].place
    assert await memory.count_runs("alice", wanted) == sum(map(len, pages))
    return pages


async def test_all_of_a_user_are_found_the_latest_change_first(database_url: str) -> None:
    clock = FakeClock(BEGIN)
    async with SQLMemory.open(database_url, clock=clock) as memory:
        agent = agent_of(ScriptedModel(then="hello"), memory)
        other = agent_of(ScriptedModel(ValueError("no")), memory, id="other")
        for number in range(4):  # two at the same time each
            if number == 2:
                clock.advance(SECOND)
            for user in ("alice", "bob"):
                await agent.run("x", user, run_id=f"r-{number}", session_id=f"s-{number % 2}")
        clock.advance(SECOND)
        with pytest.raises(ValueError, match="no"):
            await other.run("x", "alice", run_id="failed", session_id="s-0")

        assert await run_ids(memory) == [["failed", "r-3"], ["r-2", "r-1"], ["r-0"]]
        assert await run_ids(memory, limit=9) == [["failed", "r-3", "r-2", "r-1", "r-0"]]
        assert await run_ids(memory, RunFilter(session_id="s-1")) == [["r-3", "r-1"]]
        assert await run_ids(memory, RunFilter(agent_id="other")) == [["failed"]]
        assert await run_ids(memory, RunFilter(status="failed")) == [["failed"]]
        assert await run_ids(memory, RunFilter(status="running")) == []
        since = RunFilter(changed_since=BEGIN + SECOND, status="completed")
        assert await run_ids(memory, since) == [["r-3", "r-2"]]
        assert await run_ids(memory, RunFilter(session_id="none")) == []
        assert await memory.runs("alice", limit=0) == []
        assert await memory.runs("nobody") == []


async def test_a_bad_argument_is_named(sqlite_url: str) -> None:
    async with SQLMemory.open(sqlite_url) as memory:
        with pytest.raises(InvalidUserIdError):
            await memory.runs("")
        with pytest.raises(InvalidUserIdError):
            await memory.count_runs("a\0")
        with pytest.raises(InvalidOptionError, match="limit"):
            await memory.runs("alice", limit=-1)


async def test_one_that_cannot_be_decoded_is_named_and_never_skipped(tmp_path: Path) -> None:
    file = tmp_path / "chat.db"
    async with SQLMemory.open(f"sqlite:///{file}") as memory:
        await agent_of(ScriptedModel("hello"), memory).run("x", "alice", run_id="r-1")
        with sqlite3.connect(file) as other:
            other.execute("UPDATE runs SET model = char(16) || 'zzzz' WHERE user_id = 'alice'")
        other.close()
        with pytest.raises(CorruptRecordError, match="run r-1 of user 'alice', session 'default'"):
            await memory.runs("alice")
        with sqlite3.connect(file) as other:
            other.execute("UPDATE runs SET started_at = 5 WHERE user_id = 'alice'")
        other.close()
        with pytest.raises(CorruptRecordError, match="a run of user 'alice'"):
            await memory.runs("alice")
