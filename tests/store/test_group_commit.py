"""Group commit: many share a commit, and none of them is worse off for it than alone."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from agno_sql.errors import AgnoSQLError, RunLostError, StoreError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from agno_sql.runs import Lease, NewRun, RunKey
from tests.agent.models import DEADLINE_S, contents
from tests.faults.checks import assert_numbered, sync_url, without_leaks
from tests.store.examined import findings, plant
from tests.support.clock import FakeClock
from tests.support.statements import statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

USERS: Final = [f"user-{n}" for n in range(64)]
COMMITS: Final = ("COMMIT", "WITH given AS")
LOCKED: Final = "SELECT FROM conversations WHERE user_id = 'alice' FOR UPDATE"
BEGUN: Final = "INSERT INTO conversations VALUES ('alice', 'default', 1, 0, 0, now(), now())"
REFUSING: Final = {
    "sqlite": (
        "CREATE TRIGGER no BEFORE INSERT ON messages WHEN new.content = 'no' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    ),
    "postgresql": "ALTER TABLE messages ADD CONSTRAINT no CHECK (content <> 'no')",
}


@pytest.fixture
async def memory(database_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url) as opened:
        await opened.add(Message.user("first"), "somebody")
        yield opened


@contextmanager
def executed() -> Iterator[list[str]]:
    """Collect how the statements begin that are executed within."""
    seen: list[str] = []
    with statements(lambda sql: seen.append(" ".join(sql.split()[:3]))):
        yield seen


def commits(seen: list[str]) -> int:
    return sum(sql in COMMITS for sql in seen)


async def in_time(*tasks: asyncio.Task[Message]) -> list[Message]:
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.gather(*tasks)


def adding(memory: SQLMemory, *users: str) -> dict[str, asyncio.Task[Message]]:
    return {user: asyncio.create_task(memory.add(Message.user("hi"), user)) for user in users}


class TestWhatItCosts:
    @pytest.mark.guarantee("G52")
    async def test_sixty_four_adds_at_once_share_a_few_commits(self, memory: SQLMemory) -> None:
        with executed() as seen:
            stored = await asyncio.gather(*(memory.add(Message.user("hi"), user) for user in USERS))
        assert [message.seq for message in stored] == [1] * 64
        assert 1 <= commits(seen) <= 8

    @pytest.mark.guarantee("G52")
    async def test_an_add_alone_is_one_statement_on_postgresql(self, postgres_url: str) -> None:
        """Whether its conversation is there, or new, or has to be pruned (without a capacity: there)."""
        async with SQLMemory.open(postgres_url, capacity=2) as memory:
            with executed() as seen:
                for _ in range(4):
                    await memory.add(Message.user("hi"), "alice")
            stored = await memory.get_messages("alice")
        assert seen == ["WITH given AS"] * 4
        assert [message.seq for message in stored] == [3, 4]

    @pytest.mark.parametrize("new", [["x"] * 101, ["x" * 100_001]], ids=["many", "long"])
    async def test_what_is_large_goes_by_itself(self, postgres_url: str, new: list[str]) -> None:
        """Or all others of its batch would wait for it."""
        async with SQLMemory.open(postgres_url, capacity=None) as memory:
            with executed() as seen:
                await memory.extend([Message.user(text) for text in new], "alice")
            assert "WITH given AS" not in seen
            assert contents(await memory.get_messages("alice")) == new


class TestWritesOfOneConversation:
    @pytest.mark.guarantee("G54")
    async def test_keep_their_order_and_share_a_commit(self, memory: SQLMemory) -> None:
        parts = [[f"{n}.{k}" for k in range(n % 3 + 1)] for n in range(12)]
        with executed() as seen:
            stored = await asyncio.gather(
                *(memory.extend([Message.user(text) for text in part], "alice") for part in parts)
            )
        assert [contents(messages) for messages in stored] == parts
        kept = await memory.get_messages("alice")
        assert [message for messages in stored for message in messages] == kept
        assert_numbered(kept)
        assert commits(seen) <= 2

    @pytest.mark.guarantee("G54")
    async def test_results_of_a_run_that_come_at_once_share_a_commit(
        self, memory: SQLMemory
    ) -> None:
        lease = await begun(memory)
        results = [
            Message(role="tool", content=f"{n}", tool_call_id=f"c{n}", run_id="r", run_step=n)
            for n in range(1, 9)
        ]
        with executed() as seen:
            stored = await asyncio.gather(*(memory.run_log.append(lease, m) for m in results))
        assert [message.seq for message in stored] == list(range(2, 10))
        assert contents(await memory.get_messages("alice"), "tool") == contents(results)
        assert commits(seen) <= 2

    @pytest.mark.guarantee("G57")
    @pytest.mark.parametrize("first", ["lost", "live"])
    async def test_of_two_leases_are_told_apart(self, database_url: str, first: str) -> None:
        """A process may hold both: it has taken its own run over, and the old task goes on."""
        clock = FakeClock()
        async with SQLMemory.open(database_url, clock=clock) as memory:
            leases = {"lost": await begun(memory), "live": lease_of("r")}
            clock.advance(timedelta(minutes=1))
            assert await memory.run_log.resume(leases["live"], limit=None) is not None
            told = await asyncio.gather(
                *(
                    memory.run_log.append(
                        leases[which],
                        Message(role="assistant", content=which, run_id="r", run_step=1),
                    )
                    for which in sorted(leases, key=lambda which: which != first)
                ),
                return_exceptions=True,
            )
            assert [type(one) for one in told if isinstance(one, Exception)] == [RunLostError]
            assert contents(await memory.get_messages("alice")) == ["go", "live"]

    async def test_take_a_lease_from_the_time_when_they_are_stored(self, database_url: str) -> None:
        """Not from when it was asked for: it would be shorter by as long as that had to wait."""
        clock = FakeClock()
        async with SQLMemory.open(database_url):
            pass
        engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
        async with without_leaks(engine, database_url):
            memory = SQLMemory(engine, clock=clock)
            async with engine.connect():
                beginning = asyncio.create_task(begun(memory))
                await asyncio.sleep(0)  # it asks
                await asyncio.sleep(0)  # and its batch waits for a connection
                clock.advance(timedelta(seconds=10))
            async with asyncio.timeout(DEADLINE_S):
                await beginning
            clock.advance(timedelta(seconds=14))
            assert not await memory.run_log.is_free("alice", "default")
            clock.advance(timedelta(seconds=1))
            assert await memory.run_log.is_free("alice", "default")

    async def test_of_different_kinds_are_each_done_once(self, memory: SQLMemory) -> None:
        """The run's step and its answer, plain messages, and a run that has to wait for it."""
        lease, other = await begun(memory), lease_of("other")
        step = Message(role="assistant", content="step", run_id="r", run_step=1)
        answer = Message(role="assistant", content="answer", run_id="r", run_step=2)
        log = memory.run_log
        _, before, refused, after = await asyncio.gather(
            log.append(lease, step),
            memory.add(Message.user("before"), "alice"),
            log.begin(other, new_run("other"), limit=None),
            memory.add(Message.user("after"), "alice"),
        )
        assert refused is None
        ended = await asyncio.gather(
            log.complete(lease, answer, usage=Usage(1, 2)),
            memory.add(Message.user("last"), "alice"),
        )
        stored = await memory.get_messages("alice")
        assert_numbered(stored)
        assert sorted(contents(stored)) == sorted(
            ["go", "step", "before", "after", "answer", "last"]
        )
        assert {before, after, *ended} <= set(stored)
        with pytest.raises(RunLostError):
            await log.append(lease, step)


@pytest.mark.usefixtures("one_queue")
class TestAConversationThatSomebodyHolds:
    @pytest.mark.guarantee("G53")
    @pytest.mark.parametrize("statement", [LOCKED, BEGUN], ids=["locked", "begun"])
    async def test_delays_no_other_users_add_and_its_own_goes_on_when_it_is_free(
        self, postgres_url: str, statement: str
    ) -> None:
        async with SQLMemory.open(postgres_url) as memory:
            known = ["bob"] if statement == BEGUN else ["bob", "alice"]
            await in_time(*adding(memory, *known).values())
            with psycopg.connect(sync_url(postgres_url)) as somebody:
                somebody.execute(statement)
                with executed() as seen:
                    adds = adding(memory, "bob", "alice", "carol")
                    await in_time(adds["bob"], adds["carol"])
                if statement == LOCKED:  # it alone has to go another way
                    assert seen.count("INSERT INTO conversations") <= 1
                assert not adds["alice"].done()
                # Nor those who come while it waits.
                await in_time(*adding(memory, "bob", "dave").values())
                assert not adds["alice"].done()
                somebody.rollback()
                await in_time(adds["alice"])
            for user in ("alice", "bob", "carol", "dave"):
                assert_numbered(await memory.get_messages(user))

    async def test_is_waited_for_as_its_server_says_in_what_else_the_connection_does(
        self, postgres_url: str
    ) -> None:
        engine = create_async_engine(postgres_url, pool_size=1, max_overflow=0)
        async with without_leaks(engine, postgres_url):
            await SQLMemory(engine).add(Message.user("hi"), "alice")
            async with engine.connect() as conn:
                assert await conn.scalar(text("SHOW lock_timeout")) == "0"


@pytest.mark.usefixtures("one_queue")
class TestAWriteThatTheDatabaseRefuses:
    @pytest.mark.guarantee("G53")
    async def test_fails_alone_and_the_others_of_its_batch_are_stored(
        self, database_url: str, memory: SQLMemory
    ) -> None:
        plant(database_url, REFUSING[database_url.split("+", maxsplit=1)[0]])
        await self.assert_refused(memory, Message.user("no"), AgnoSQLError)

    @pytest.mark.guarantee("G53")
    async def test_as_its_number_of_tokens_is_none_for_a_database_fails_alone(
        self, memory: SQLMemory
    ) -> None:
        answer = Message(role="assistant", content="many", usage=Usage(2**70, 1))
        await self.assert_refused(memory, answer, (AgnoSQLError, OverflowError))

    async def assert_refused(
        self, memory: SQLMemory, bad: Message, error: type[Exception] | tuple[type[Exception], ...]
    ) -> None:
        fine = adding(memory, *USERS[:5])
        refused = asyncio.create_task(memory.extend([Message.user("yes"), bad], "alice"))
        fine |= adding(memory, *USERS[5:10])
        await in_time(*fine.values())
        with pytest.raises(error):
            await refused
        assert await memory.size("alice") == 0
        for user in fine:
            assert contents(await memory.get_messages(user)) == ["hi"]

    async def test_raises_an_error_of_its_own_where_all_are_refused(
        self, database_url: str
    ) -> None:
        async with SQLMemory.open(database_url) as closed:
            pass
        told = await asyncio.gather(*adding(closed, *USERS[:3]).values(), return_exceptions=True)
        assert [type(error) for error in told] == [StoreError] * 3
        assert len({id(error) for error in told}) == 3

    async def test_is_refused_where_it_begins_a_run_of_an_id_that_was_used(
        self, memory: SQLMemory
    ) -> None:
        lease = await begun(memory)
        answer = Message(role="assistant", content="done", run_id="r", run_step=1)
        await memory.run_log.complete(lease, answer, usage=Usage(1, 1))
        adds = adding(memory, *USERS[:5])
        again = memory.run_log.begin(lease_of("r"), new_run("r"), limit=None)
        assert await again is None
        await in_time(*adds.values())
        assert contents(await memory.get_messages("alice")) == ["go", "done"]


@pytest.mark.usefixtures("one_queue")
class TestACancelledWrite:
    @pytest.mark.guarantee("G55")
    async def test_before_its_batch_has_begun_stores_nothing_and_the_others_are_stored(
        self, database_url: str
    ) -> None:
        async with SQLMemory.open(database_url):
            pass
        engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
        async with without_leaks(engine, database_url):
            memory = SQLMemory(engine)
            async with engine.connect():
                adds = adding(memory, "alice", "bob", "carol")
                await asyncio.sleep(0)  # all have asked, and no connection is free for their batch
                adds["bob"].cancel()
                with pytest.raises(asyncio.CancelledError):
                    await adds["bob"]
            await in_time(adds["alice"], adds["carol"])
            sizes = [await memory.size(user) for user in adds]
        assert sizes == [1, 0, 1]

    @pytest.mark.guarantee("G55")
    async def test_in_its_batch_is_stored_whole_and_the_others_get_their_answers(
        self, database_url: str
    ) -> None:
        async with SQLMemory.open(database_url):
            pass
        engine = create_async_engine(database_url)
        async with without_leaks(engine, database_url):
            memory = SQLMemory(engine)

            def cancel(sql: str) -> None:
                if sql.startswith(("WITH given AS", "INSERT INTO messages")):
                    victim.cancel()

            adds = adding(memory, "alice", "carol")
            new = [Message.user("one"), Message.user("two")]
            victim = asyncio.create_task(memory.extend(new, "bob"))
            with statements(cancel):
                await in_time(*adds.values())
                with pytest.raises(asyncio.CancelledError):
                    await victim
            assert contents(await memory.get_messages("bob")) == ["one", "two"]

    async def test_whose_batch_is_cancelled_as_it_begins_leaves_no_lock_behind(
        self, sqlite_url: str
    ) -> None:
        cancelled: list[str] = []

        def cancel(sql: str) -> None:
            task = asyncio.current_task()
            if sql == "BEGIN IMMEDIATE" and task is not None and not cancelled:
                cancelled.append(sql)  # it goes on in the connection's thread
                task.cancel()

        async with SQLMemory.open(sqlite_url) as memory, SQLMemory.open(sqlite_url) as another:
            with closing(sqlite3.connect(str(make_url(sqlite_url).database))) as somebody:
                somebody.execute("BEGIN IMMEDIATE")
                with statements(cancel), pytest.raises(asyncio.CancelledError):
                    await memory.add(Message.user("cancelled"), "alice")
                somebody.rollback()  # the thread takes the lock, and nobody waits for it
            assert cancelled
            await in_time(*adding(another, "alice").values())
            assert contents(await memory.get_messages("alice")) == ["hi"]

    @pytest.mark.guarantee("G55")
    async def test_whose_batch_is_cancelled_too_leaves_nothing_torn(
        self, database_url: str
    ) -> None:
        """As at the end of asyncio.run."""
        async with SQLMemory.open(database_url):
            pass
        engine = create_async_engine(database_url)
        async with without_leaks(engine, database_url):
            memory = SQLMemory(engine, capacity=None)
            batches: list[asyncio.Task[object]] = []

            def cancel(sql: str) -> None:
                task = asyncio.current_task()
                if sql.startswith(("WITH given AS", "BEGIN IMMEDIATE")) and task is not None:
                    batches.append(task)
                    if len(batches) == 3:
                        for each in [*adds, task]:
                            each.cancel()

            adds = [
                asyncio.create_task(memory.add(Message.user(str(n)), USERS[n % 5]))
                for n in range(600)
            ]
            with statements(cancel):
                async with asyncio.timeout(DEADLINE_S):
                    await asyncio.gather(*adds, return_exceptions=True)
                    await asyncio.gather(*batches, return_exceptions=True)
            acknowledged = [add.result() for add in adds if not add.cancelled()]
            assert 0 < len(acknowledged) < len(adds)
            stored = [await memory.get_messages(user) for user in USERS[:5]]
            for messages in stored:
                assert_numbered(messages)
            assert set(acknowledged) <= {message for messages in stored for message in messages}
            assert (await memory.add(Message.user("next"), "alice")).seq == 1
        assert await findings(database_url, now=FakeClock().now()) == []


def lease_of(run_id: str, user: str = "alice") -> Lease:
    return Lease(RunKey(user, "default", run_id), uuid4().hex, timedelta(seconds=15))


def new_run(run_id: str) -> NewRun:
    question = Message(role="user", content="go", run_id=run_id, run_step=0)
    return NewRun(agent_id="tester", model="m", input=question)


async def begun(memory: SQLMemory) -> Lease:
    lease = lease_of("r")
    assert await memory.run_log.begin(lease, new_run("r"), limit=None) is not None
    return lease
