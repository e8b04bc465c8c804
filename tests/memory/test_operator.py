"""What an operator asks over all users."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import text

from agno_sql.errors import (
    AgnoSQLError,
    CorruptRecordError,
    InvalidOptionError,
    InvalidRunIdError,
    InvalidSessionIdError,
    InvalidUserIdError,
    ModelError,
)
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from agno_sql.models.chat_model import ModelReply
from agno_sql.oversight import Day, Kept
from agno_sql.store.engine import open_engine
from tests.agent.models import ScriptedModel, agent_of
from tests.store.examined import plant

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from tests.support.clock import FakeClock

HIGHEST: Final = "\U0010ffff"
NOBODY: Final = Kept(users=0, sessions=0, messages=0, runs=0)


async def say(memory: SQLMemory, user: str, session: str = "default") -> None:
    await memory.add(Message.user("hi"), user, session_id=session)


async def run(memory: SQLMemory, user: str, *, session: str = "default", run_id: str) -> None:
    """Let an agent answer *user*; a run whose id begins with "bad" fails."""
    reply = ModelReply("hello", usage=Usage(5, 2))
    step = ModelError("broken") if run_id.startswith("bad") else reply
    agent = agent_of(ScriptedModel(step), memory)
    if run_id.startswith("bad"):
        with pytest.raises(AgnoSQLError):
            await agent.run("hi", user, session_id=session, run_id=run_id)
    else:
        await agent.run("hi", user, session_id=session, run_id=run_id)


def set_to(clock: FakeClock, moment: datetime) -> None:
    clock.advance(moment - clock.now())


class TestUsers:
    """Are listed once each, whatever their ids."""

    @pytest.mark.guarantee("G90")
    async def test_come_latest_first_and_pages_repeat_and_omit_nobody(
        self, memory: SQLMemory, clock: FakeClock
    ) -> None:
        for number in range(23):
            if number % 3 == 0:  # three at a time are of the same instant
                clock.advance(timedelta(minutes=1))
            await say(memory, f"user-{number:02}", "first")
            await say(memory, f"user-{number:02}", "second")
        clock.advance(timedelta(minutes=1))
        await say(memory, "user-05", "third")
        listed = []
        page = await memory.operator.users(limit=4)
        while page:
            listed += page
            page = await memory.operator.users(limit=4, after=page[-1])
        names = [user.user_id for user in listed]
        expected = sorted(
            (f"user-{n:02}" for n in range(23) if n != 5),
            key=lambda name: (int(name[-2:]) // 3, name),
            reverse=True,
        )
        assert names == ["user-05", *expected]
        assert (listed[0].sessions, listed[0].messages) == (3, 3)
        assert (listed[1].sessions, listed[1].messages) == (2, 2)
        assert await memory.operator.users(limit=0) == []

    @pytest.mark.guarantee("G90")
    async def test_are_found_by_how_their_ids_begin_and_no_others(self, memory: SQLMemory) -> None:
        """Code point by code point on both databases, where a language would order otherwise."""
        tricky = ["a\ud7ff", "a\ue000", f"a{HIGHEST}", HIGHEST, f"{HIGHEST}x", HIGHEST * 3]
        plain = ["a", "A", "ab", "a%", "a_", "ax", "a b", "b", "á", "%", "_", "~~"]
        ids = sorted([*tricky, *plain, "\ud7ff", "\ud7ffz", "\ue000"])
        for user in ids:
            await say(memory, user)
        for prefix in [*ids, "c", "a\ud7ff\ud7ff", HIGHEST * 4, "a" * 255]:
            expected = [user for user in ids if user.startswith(prefix)]
            found: list[str] = []
            page = await memory.operator.users_by_prefix(prefix, limit=2)
            while page:
                found += [user.user_id for user in page]
                page = await memory.operator.users_by_prefix(prefix, limit=2, after=found[-1])
            assert found == expected, prefix

    async def test_that_are_found_carry_their_totals(
        self, memory: SQLMemory, clock: FakeClock
    ) -> None:
        await say(memory, "alice", "a")
        await say(memory, "alice", "b")
        at = clock.advance(timedelta(hours=1))
        await say(memory, "alice", "a")
        (alice,) = await memory.operator.users_by_prefix("al")
        assert (alice.sessions, alice.messages, alice.last_active_at) == (2, 3, at)


class TestADryRun:
    """Counts what is there, of whom it is about alone."""

    async def test_of_a_user_and_of_a_session(self, memory: SQLMemory) -> None:
        await run(memory, "alice", run_id="r1")
        await run(memory, "alice", run_id="bad")
        await run(memory, "alice", session="other", run_id="r2")
        await run(memory, "bob", run_id="r3")
        operator = memory.operator
        assert await operator.kept("alice") == Kept(users=1, sessions=2, messages=5, runs=3)
        found = await operator.kept("alice", session_id="default")
        assert found == Kept(users=1, sessions=1, messages=3, runs=2)
        assert await operator.kept("carol") == NOBODY
        assert await operator.kept("bob", session_id="other") == NOBODY

    @pytest.mark.guarantee("G93")
    async def test_of_a_clean_up_counts_just_those_who_are_then_deleted(
        self, memory: SQLMemory, clock: FakeClock
    ) -> None:
        for user in ("gone", "gone-too"):
            await run(memory, user, run_id="r")
            await say(memory, user, "other")
        until = clock.now()
        clock.advance(timedelta(seconds=1))
        await say(memory, "here")
        await say(memory, "gone-too", "new")
        found = await memory.operator.inactive(until)
        assert found == Kept(users=1, sessions=2, messages=3, runs=1)
        assert await memory.operator.delete_inactive(until, within=timedelta(minutes=1)) == 1
        assert await memory.operator.inactive(until) == NOBODY
        left = await memory.operator.users()
        assert {user.user_id for user in left} == {"here", "gone-too"}

    async def test_of_a_clean_up_without_anybody_counts_nothing(
        self, memory: SQLMemory, clock: FakeClock
    ) -> None:
        assert await memory.operator.inactive(clock.now()) == NOBODY

    @pytest.mark.guarantee("G93")
    async def test_whose_clean_up_takes_too_long_is_gone_on_with(
        self, memory: SQLMemory, clock: FakeClock
    ) -> None:
        for number in range(3):
            for session in "abc":
                many = [Message.user("x")] * 99
                await memory.extend(many, f"user-{number}", session_id=session)
        until, deleted = clock.now(), []
        while (await memory.operator.inactive(until)).users:
            deleted.append(await memory.operator.delete_inactive(until, within=timedelta(0)))
        assert deleted == [1, 1, 1]


class TestTheRunsOfASession:
    """Are of that session alone, the newest first."""

    async def test_come_in_pages_that_repeat_and_omit_nothing(self, memory: SQLMemory) -> None:
        for number in range(5):
            await run(memory, "alice", run_id=f"r{number}")
        await run(memory, "alice", run_id="bad")
        await run(memory, "alice", session="other", run_id="r9")
        await run(memory, "bob", run_id="r9")
        found = []
        page = await memory.operator.runs("alice", session_id="default", limit=2)
        while page:
            found += page
            last = page[-1].last_seq, page[-1].record.run_id
            page = await memory.operator.runs("alice", session_id="default", limit=2, after=last)
        assert [one.record.run_id for one in found] == ["bad", "r4", "r3", "r2", "r1", "r0"]
        assert found[0].record.error_type == "ModelError"
        assert found[1].record.usage == Usage(5, 2)
        assert (found[-1].first_seq, found[-1].last_seq) == (1, 2)

    async def test_that_cannot_be_decoded_are_named(
        self, memory: SQLMemory, database_url: str
    ) -> None:
        await run(memory, "alice", run_id="bad")
        engine = open_engine(database_url)
        async with engine.begin() as conn:
            await conn.execute(
                text("UPDATE runs SET error_type = :broken WHERE user_id = 'alice'"),
                {"broken": "\x10zzzz"},
            )
        await engine.dispose()
        with pytest.raises(CorruptRecordError, match="a run of user 'alice', session 'default'"):
            await memory.operator.runs("alice", session_id="default")
        with pytest.raises(CorruptRecordError, match="a run that failed"):
            await memory.operator.statistics()

    async def test_of_no_day_are_no_statistics(self, sqlite_url: str) -> None:
        async with SQLMemory.open(sqlite_url) as memory:
            await say(memory, "alice")
            plant(sqlite_url, "UPDATE messages SET created_at = 'tomorrow'")
            with pytest.raises(CorruptRecordError, match="the time of a message or a run"):
                await memory.operator.statistics()


@pytest.mark.guarantee("G92")
async def test_statistics_tell_each_day_as_it_was(memory: SQLMemory, clock: FakeClock) -> None:
    """Days are of UTC, those without anything are there, and what is older is not."""
    set_to(clock, datetime(2026, 3, 1, 23, 59, 59, 999_999, UTC))
    await run(memory, "alice", run_id="old")
    set_to(clock, datetime(2026, 3, 2, tzinfo=UTC))
    await run(memory, "alice", run_id="r1")
    await run(memory, "alice", session="other", run_id="bad")
    await say(memory, "bob")
    midnight = datetime(2026, 3, 4, tzinfo=UTC)
    set_to(clock, midnight)
    await run(memory, "bob", run_id="r2")
    found = await memory.operator.statistics(days=3)
    assert found.at == midnight
    assert found.days == [
        Day(
            day=date(2026, 3, 2),
            users=2,
            messages=4,
            runs=2,
            failed_runs=1,
            input_tokens=5,
            output_tokens=2,
        ),
        Day(day=date(2026, 3, 3)),
        Day(day=date(2026, 3, 4), users=1, messages=2, runs=1, input_tokens=5, output_tokens=2),
    ]
    assert found.kept == Kept(users=2, sessions=3, messages=8, runs=4)
    assert [failure.run_id for failure in found.failures] == ["bad"]
    assert found.took > timedelta(0)
    assert sum(found.sizes.values()) > 8192


@pytest.mark.guarantee("G92")
async def test_statistics_of_nothing_are_zeros(memory: SQLMemory, clock: FakeClock) -> None:
    found = await memory.operator.statistics()
    today = clock.now().date()
    assert found.kept == NOBODY
    assert found.failures == []
    assert found.days == [Day(day=today - timedelta(days=n)) for n in range(29, -1, -1)]


async def test_what_an_operator_asks_has_to_be_sound(memory: SQLMemory) -> None:
    operator, now = memory.operator, datetime.now(UTC)
    wrong: list[tuple[Coroutine[Any, Any, object], type[AgnoSQLError]]] = [
        (operator.users(limit=-1), InvalidOptionError),
        (operator.users_by_prefix(""), InvalidUserIdError),
        (operator.users_by_prefix("a\n"), InvalidUserIdError),
        (operator.kept(""), InvalidUserIdError),
        (operator.kept("a", session_id=""), InvalidSessionIdError),
        (operator.runs("a", session_id="s", limit=-1), InvalidOptionError),
        (operator.runs("a", session_id="s", after=(-1, "r")), InvalidOptionError),
        (operator.runs("a", session_id="s", after=(1, "r r")), InvalidRunIdError),
        (operator.statistics(days=0), InvalidOptionError),
        (operator.statistics(days=367), InvalidOptionError),
        (operator.delete_inactive(now, within=timedelta(-1)), InvalidOptionError),
    ]
    for asked, error in wrong:
        with pytest.raises(error):
            await asked
