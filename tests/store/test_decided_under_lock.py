"""On PostgreSQL a statement sees the moment it began; what it decides is of the moment it locks.

Here it is held between the two, and somebody else changes the conversation meanwhile.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from agno_sql.errors import RunLostError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from agno_sql.runs import Ending
from tests.agent.models import DEADLINE_S, contents
from tests.faults.checks import sync_url, until
from tests.store.examined import findings, places
from tests.store.test_group_commit import lease_of, new_run
from tests.support.clock import FakeClock
from tests.support.runner import everything, rows
from tests.support.statements import statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

# The view stops whoever is called "held" at the rows that it finds, before they are locked. It
# polls, since waiting for a lock is what the statement limits.
HOLD: Final = """
ALTER TABLE conversations RENAME TO all_conversations;
CREATE FUNCTION lets_through(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') = 'held' THEN
        PERFORM pg_advisory_xact_lock_shared(1);
        WHILE NOT pg_try_advisory_xact_lock_shared(2) LOOP PERFORM pg_sleep(0.002); END LOOP;
    END IF;
    RETURN true;
END $$;
CREATE VIEW conversations AS SELECT * FROM all_conversations WHERE lets_through(user_id);
"""
IS_HELD: Final = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
CAPACITY: Final = 3
KEPT: Final = ["1", "2", "3"]


def says(*texts: str) -> list[Message]:
    return [Message.user(text) for text in texts]


class Race:
    """A memory that is held in the middle of its statement, and one that is not."""

    def __init__(self, url: str, held: SQLMemory, free: SQLMemory, clock: FakeClock) -> None:
        self.url, self.held, self.free, self.clock = url, held, free, clock

    async def run(self, late: Awaitable[Any], *early: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer of *late*, which began before *early* was done and locks after it."""
        with psycopg.connect(sync_url(self.url), autocommit=True) as gate:
            gate.execute("SELECT pg_advisory_lock(2)")
            task = asyncio.ensure_future(late)
            await until(lambda: gate.execute(IS_HELD).fetchone() == (1,))
            for do in early:
                await do()
        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.wait_for(task, DEADLINE_S)

    async def kept(self) -> list[str]:
        return contents(await self.free.get_messages("alice"))

    async def is_whole(self) -> bool:
        return await findings(self.url, now=self.clock.now()) == []


@pytest.fixture
async def race(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[Race]:
    """A race at a capacity, CAPACITY unless a test says which."""
    capacity: int | None = getattr(request, "param", CAPACITY)
    with psycopg.connect(sync_url(postgres_url), autocommit=True) as server:
        server.execute(HOLD)
    clock = FakeClock()
    called = {"server_settings": {"application_name": "held"}}
    engine = create_async_engine(postgres_url, connect_args=called)
    async with SQLMemory.open(postgres_url, capacity=capacity, clock=clock) as free:
        await free.extend(says(*KEPT), "alice")
        yield Race(postgres_url, SQLMemory(engine, capacity=capacity, clock=clock), free, clock)
    await engine.dispose()


class TestAnAppendAtCapacity:
    @pytest.mark.guarantee("G56")
    async def test_prunes_what_is_there_when_it_locks(self, race: Race) -> None:
        late = race.held.extend(says("late"), "alice")
        stored = await race.run(late, lambda: race.free.extend(says("4", "5"), "alice"))
        assert stored[0].seq == 6
        assert await race.kept() == ["4", "5", "late"]
        assert await race.is_whole()

    @pytest.mark.parametrize(
        "how, seq, kept",
        [
            ("clear", 4, ["late"]),
            ("erase", 1, ["late"]),
            ("clear_all", 1, ["late"]),
            ("erase and add", 4, ["b", "c", "late"]),
        ],
    )
    @pytest.mark.guarantee("G56")
    async def test_goes_on_behind_what_deleted_the_conversation(
        self, race: Race, how: str, seq: int, kept: list[str]
    ) -> None:
        """Added anew, it has the counters that the statement has seen."""

        async def delete() -> None:
            match how:
                case "clear":
                    await race.free.clear("alice")
                case "clear_all":
                    await race.free.clear_all()
                case _:
                    await race.free.erase("alice")
            if how == "erase and add":
                await race.free.extend(says("a", "b", "c"), "alice")

        (stored,) = await race.run(race.held.extend(says("late"), "alice"), delete)
        assert stored.seq == seq
        assert await race.kept() == kept
        assert await race.is_whole()

    async def test_leaves_a_run_whole_that_has_begun_meanwhile(self, race: Race) -> None:
        lease = lease_of("r")
        step = Message(role="assistant", content="step", run_id="r", run_step=1)
        await race.run(
            race.held.extend(says("late", "later"), "alice"),
            lambda: race.free.run_log.begin(lease, new_run("r"), limit=None),
            lambda: race.free.run_log.append(lease, step),
        )
        assert await race.kept() == ["go", "step", "late", "later"]
        answer = Message(role="assistant", content="answer", run_id="r", run_step=2)
        await race.free.run_log.complete(lease, answer, usage=Usage(1, 1))
        assert await race.kept() == ["late", "later", "answer"]
        assert await race.is_whole()

    async def test_keeps_the_system_message_that_came_meanwhile(self, race: Race) -> None:
        late = race.held.extend(says("late", "later"), "alice")
        await race.run(late, lambda: race.free.add(Message.system("be kind"), "alice"))
        assert await race.kept() == ["be kind", "late", "later"]
        assert await race.is_whole()


class TestAWriteOfARun:
    @pytest.mark.guarantee("G57")
    @pytest.mark.parametrize("race", [CAPACITY, None], indirect=True)
    @pytest.mark.parametrize("what", ["step", "complete"])
    @pytest.mark.parametrize("how", ["taken over", "closed", "cleared", "erased", "begun anew"])
    async def test_stores_nothing_once_the_lease_is_lost(
        self, race: Race, what: str, how: str
    ) -> None:
        lease = lease_of("r")
        await race.free.run_log.begin(lease, new_run("r"), limit=None)
        stored: list[Any] = []

        async def lose() -> None:
            race.clock.advance(timedelta(minutes=1))
            log = race.free.run_log
            match how:
                case "taken over":
                    assert await log.resume(lease_of("r"), limit=None) is not None
                case "closed":
                    failed = Ending(status="failed", error_type="E", error_message="")
                    await log.close(lease, failed)
                case "cleared":
                    await race.free.clear("alice")
                case "erased":
                    await race.free.erase("alice")
                case _:
                    await log.begin(lease_of("next"), new_run("next"), limit=None)
            stored.append(everything(race.url))

        answer = Message(role="assistant", content="late", run_id="r", run_step=1)
        log = race.held.run_log
        late = (
            log.append(lease, answer)
            if what == "step"
            else log.complete(lease, answer, usage=Usage(1, 1))
        )
        with pytest.raises(RunLostError):
            await race.run(late, lose)
        assert stored == [everything(race.url)]
        assert await race.is_whole()

    async def test_counts_what_others_have_added_meanwhile(self, race: Race) -> None:
        lease = lease_of("r")
        await race.free.run_log.begin(lease, new_run("r"), limit=None)
        answer = Message(role="assistant", content="answer", run_id="r", run_step=1)
        ended = await race.run(
            race.held.run_log.complete(lease, answer, usage=Usage(1, 1)),
            lambda: race.free.extend(says("by", "the", "way"), "alice"),
        )
        assert ended.seq == 8
        assert await race.kept() == ["the", "way", "answer"]
        assert await race.is_whole()


class TestABegin:
    @pytest.mark.guarantee("G57")
    async def test_does_not_take_what_another_run_has_taken_meanwhile(self, race: Race) -> None:
        early = lease_of("early")
        begun = await race.run(
            race.held.run_log.begin(lease_of("late"), new_run("late"), limit=None),
            lambda: race.free.run_log.begin(early, new_run("early"), limit=None),
        )
        assert begun is None
        assert await race.kept() == [*KEPT, "go"]
        step = Message(role="assistant", content="step", run_id="early", run_step=1)
        await race.free.run_log.append(early, step)
        assert await race.is_whole()

    async def test_takes_what_was_given_back_meanwhile(self, race: Race) -> None:
        early, late = lease_of("early"), lease_of("late")
        await race.free.run_log.begin(early, new_run("early"), limit=None)
        answer = Message(role="assistant", content="answer", run_id="early", run_step=1)
        begun = await race.run(
            race.held.run_log.begin(late, new_run("late"), limit=None),
            lambda: race.free.run_log.complete(early, answer, usage=Usage(1, 1)),
        )
        assert contents(begun.history) == ["3", "go", "answer"]
        assert places(await findings(race.url, now=race.clock.now())) == []


@pytest.mark.parametrize("race", [None], indirect=True)
class TestALoneWriterWithoutACapacity:
    async def test_is_counted_and_numbered_before_what_it_stores(self, race: Race) -> None:
        late = await race.run(
            race.held.extend(says("late", "later"), "alice"),
            lambda: race.free.extend(says("4", "5"), "alice"),
        )
        assert [message.seq for message in late] == [6, 7]
        assert await race.kept() == [*KEPT, "4", "5", "late", "later"]
        assert await race.is_whole()

    async def test_moves_the_beginning_of_a_run(self, race: Race) -> None:
        await race.run(
            race.held.run_log.begin(lease_of("r"), new_run("r"), limit=None),
            lambda: race.free.extend(says("4", "5"), "alice"),
        )
        assert [row["run_first_seq"] for row in rows(race.url, "conversations")] == [6]
        assert [(run["first_seq"], run["last_seq"]) for run in rows(race.url, "runs")] == [(6, 6)]
        assert await race.is_whole()

    @pytest.mark.parametrize("how", ["erase", "clear"])
    async def test_may_be_a_deletion_and_it_need_not_go_the_portable_way(
        self, race: Race, how: str
    ) -> None:
        late, seen = race.held.extend(says("late", "later"), "alice"), list[str]()
        with statements(seen.append):
            stored = await race.run(late, lambda: getattr(race.free, how)("alice"))
        assert not any(sql.startswith("INSERT INTO conversations") for sql in seen)
        first = 1 if how == "erase" else 4
        assert [message.seq for message in stored] == [first, first + 1]
        assert await race.kept() == ["late", "later"]
