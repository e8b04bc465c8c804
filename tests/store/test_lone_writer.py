"""Who writes alone on PostgreSQL: one statement that decides by the row that it updates.

Without a capacity every kind of write goes that way. What happens to the row while it is held before
its lock stands in test_decided_under_lock.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from tests.agent.models import contents
from tests.faults.checks import assert_numbered, sync_url, until
from tests.store.examined import findings
from tests.store.plans import executed, nodes_of, postgresql_plans
from tests.store.test_decided_under_lock import KEPT, says
from tests.store.test_group_commit import LOCKED, lease_of, new_run
from tests.support.clock import FakeClock
from tests.support.runner import Row, everything, rows
from tests.support.statements import statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONE: Final = "UPDATE conversations c SET"
WAITING: Final = (
    "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
    "AND datname = current_database()"
)
OF_THE_RUN: Final = ("run_id", "run_first_seq", "lease_token", "lease_expires_at")


def answer(content: str, step: int = 1, run_id: str = "r") -> Message:
    return Message(role="assistant", content=content, run_id=run_id, run_step=step)


def conversation(url: str) -> Row:
    (row,) = rows(url, "conversations")
    return row


def held_by(url: str) -> tuple[Any, ...]:
    row = conversation(url)
    return tuple(row[name] for name in OF_THE_RUN)


@pytest.fixture
async def memory(postgres_url: str, clock: FakeClock) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(postgres_url, capacity=None, clock=clock) as opened:
        await opened.extend(says(*KEPT), "alice")
        yield opened


class TestWhatALoneWriterSends:
    async def test_is_one_statement_for_every_write_to_a_conversation_that_is_there(
        self, memory: SQLMemory
    ) -> None:
        lease, log, seen = lease_of("r"), memory.run_log, list[str]()
        with statements(seen.append):
            await memory.add(Message.user("4"), "alice")
            await memory.extend(says("5", "6"), "alice")
            await log.begin(lease, new_run("r"), limit=None)
            await log.append(lease, answer("step"))
            await log.complete(lease, answer("answer", 2), usage=Usage(1, 1))
        written = [sql for sql in seen if sql.startswith("WITH given AS")]
        assert [LONE in sql for sql in written] == [True] * 5
        assert_numbered(await memory.get_messages("alice"))

    async def test_begins_a_run_in_a_conversation_beyond_its_capacity(
        self, postgres_url: str
    ) -> None:
        """It is the run's end that prunes."""
        async with SQLMemory.open(postgres_url, capacity=3) as memory:
            await memory.extend(says(*KEPT), "alice")
            seen: list[str] = []
            with statements(seen.append):
                await memory.run_log.begin(lease_of("r"), new_run("r"), limit=None)
            assert [LONE in sql for sql in seen if sql.startswith("WITH given AS")] == [True]
            assert contents(await memory.get_messages("alice")) == [*KEPT, "go"]

    async def test_finds_its_conversation_by_the_key_with_a_plan_from_when_tables_were_empty(
        self, postgres_url: str, memory: SQLMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = lease_of("r")
        with executed(monkeypatch) as seen:
            await memory.extend(says("4", "5"), "alice")
            await memory.run_log.begin(lease, new_run("r"), limit=None)
            await memory.run_log.complete(lease, answer("answer"), usage=Usage(1, 1))
        lone = [one for one in seen if LONE in one.sql]
        assert len(lone) == 3
        for statement in lone:
            for plan in await postgresql_plans(postgres_url, statement):
                nodes = list(nodes_of(plan))
                assert "Seq Scan" not in {node["Node Type"] for node in nodes}, statement.sql
                (found,) = (n for n in nodes if n.get("Index Name") == "pk_conversations")
                assert "user_id" in found["Index Cond"], statement.sql
                assert "session_id" in found["Index Cond"], statement.sql


class TestTheRowAfterwards:
    async def test_is_held_by_the_run_from_its_first_message_to_its_end(
        self, postgres_url: str, memory: SQLMemory, clock: FakeClock
    ) -> None:
        lease, log = lease_of("r"), memory.run_log
        await log.begin(lease, new_run("r"), limit=None)
        until_then = clock.now() + lease.duration
        clock.advance(timedelta(seconds=5))
        await memory.extend(says("by", "the way"), "alice")
        assert held_by(postgres_url) == ("r", 4, lease.token, until_then)
        await log.append(lease, answer("step"))
        until_then += timedelta(seconds=5)
        assert held_by(postgres_url) == ("r", 4, lease.token, until_then)
        await log.complete(lease, answer("answer", 2), usage=Usage(3, 4))
        await memory.add(Message.user("next"), "alice")
        assert held_by(postgres_url) == (None, None, lease.token, None)
        assert await memory.size("alice") == 9
        assert await findings(postgres_url, now=clock.now()) == []

    async def test_was_last_active_when_the_clock_that_is_ahead_says(
        self, postgres_url: str, memory: SQLMemory, clock: FakeClock
    ) -> None:
        behind = FakeClock(clock.now() - timedelta(minutes=1))
        clock.advance(timedelta(seconds=1))
        await memory.add(Message.user("4"), "alice")
        assert conversation(postgres_url)["last_active_at"] == clock.now()
        async with SQLMemory.open(postgres_url, capacity=None, clock=behind) as slow:
            await slow.add(Message.user("5"), "alice")
        assert conversation(postgres_url)["last_active_at"] == clock.now()
        assert (await memory.get_messages("alice"))[-1].created_at == behind.now()

    async def test_is_that_of_no_other_user_or_session(
        self, postgres_url: str, memory: SQLMemory
    ) -> None:
        await memory.extend(says(*"0123456789"), "bob")
        await memory.add(Message.user("hi"), "alice", session_id="other")
        before = everything(postgres_url)
        await memory.extend(says("4", "5"), "alice")
        after = everything(postgres_url)
        changed = [row for table in after for row in after[table] if row not in before[table]]
        assert {(row["user_id"], row["session_id"]) for row in changed} == {("alice", "default")}
        assert len(changed) == 3


@pytest.mark.usefixtures("one_queue")
class TestAConversationThatSomebodyHolds:
    @pytest.mark.guarantee("G53")
    async def test_is_waited_for_soon_by_itself_and_written_to_once(
        self, postgres_url: str, memory: SQLMemory
    ) -> None:
        with (
            psycopg.connect(sync_url(postgres_url)) as somebody,
            psycopg.connect(sync_url(postgres_url), autocommit=True) as watch,
        ):
            somebody.execute(LOCKED)
            add = asyncio.create_task(memory.extend(says("late", "later"), "alice"))

            def waits_by_itself() -> bool:
                found = watch.execute(WAITING).fetchone()
                return found is not None and found[0].startswith("INSERT INTO conversations")

            await until(waits_by_itself)
            somebody.rollback()
            await add
        stored = await memory.get_messages("alice")
        assert contents(stored) == [*KEPT, "late", "later"]
        assert_numbered(stored)
