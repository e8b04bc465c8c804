"""What an operator deletes: users who are gone, and users who ask for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, make_url

from agno_sql.errors import InvalidOptionError, InvalidUserIdError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.memory.talk import DAY, HOUR, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clock import FakeClock

SYNC_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


async def seqs(memory: SQLMemory, user: str, session: str = "default") -> list[int | None]:
    return [m.seq for m in await memory.get_messages(user, session_id=session)]


async def test_users_who_are_idle_for_long_enough_are_deleted_with_all_their_sessions(
    memory: SQLMemory, clock: FakeClock
) -> None:
    for user in ("gone", "back"):
        await say(memory, user, session="1", times=3)
        await say(memory, user, session="2", times=2)
    clock.advance(DAY)
    await say(memory, "back", session="2")
    await say(memory, "new")
    assert await memory.delete_inactive(DAY / 2) == 1
    assert await memory.last_activity("gone") is None
    assert await memory.sessions("gone") == []
    assert await seqs(memory, "gone", "1") == []
    assert await memory.size("gone", session_id="2") == 0
    assert await seqs(memory, "back", "1") == [1, 2, 3]
    assert await seqs(memory, "back", "2") == [1, 2, 3]
    assert await seqs(memory, "new") == [1]
    assert await memory.delete_inactive(DAY / 2) == 0
    await say(memory, "gone", session="1")
    assert await seqs(memory, "gone", "1") == [1]


async def test_an_idle_time_of_zero_deletes_everybody(memory: SQLMemory, clock: FakeClock) -> None:
    for user in ("alice", "bob"):
        await say(memory, user)
    clock.advance(timedelta(microseconds=1))
    assert await memory.delete_inactive(timedelta(0)) == 2
    assert await memory.inactive_users(timedelta(0)) == []
    assert await seqs(memory, "alice") == await seqs(memory, "bob") == []


async def test_an_idle_time_longer_than_any_calendar_finds_nobody(
    memory: SQLMemory, clock: FakeClock
) -> None:
    await say(memory, "alice")
    clock.advance(DAY)
    assert await memory.inactive_users(timedelta.max) == []
    assert await memory.delete_inactive(timedelta.max) == 0
    assert await seqs(memory, "alice") == [1]


@pytest.mark.parametrize("idle_for", [timedelta(microseconds=-1), -DAY, 3600, None])
async def test_an_idle_time_that_is_no_duration_is_refused(
    memory: SQLMemory, clock: FakeClock, idle_for: Any
) -> None:
    await say(memory, "alice")
    clock.advance(DAY)
    with pytest.raises(InvalidOptionError, match="idle_for"):
        await memory.delete_inactive(idle_for)
    with pytest.raises(InvalidOptionError, match="idle_for"):
        await memory.inactive_users(idle_for)
    assert await seqs(memory, "alice") == [1]


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, None, 10_001])
async def test_a_batch_is_a_number_from_one_to_ten_thousand(memory: SQLMemory, batch: Any) -> None:
    with pytest.raises(InvalidOptionError, match="batch"):
        await memory.delete_inactive(DAY, batch=batch)


@pytest.mark.parametrize("limit", [-1, True, "5", None])
async def test_a_limit_of_a_page_is_a_number_from_zero(memory: SQLMemory, limit: Any) -> None:
    with pytest.raises(InvalidOptionError, match="limit"):
        await memory.inactive_users(DAY, limit=limit)
    with pytest.raises(InvalidOptionError, match="limit"):
        await memory.sessions("alice", limit=limit)


async def test_each_batch_of_a_deletion_is_committed_before_the_next(
    memory: SQLMemory, clock: FakeClock, database_url: str
) -> None:
    """Seven users of two sessions each, three users at a time: seen by another connection."""
    for n in range(7):
        await say(memory, f"user-{n}", session="1")
        await say(memory, f"user-{n}", session="2")
    clock.advance(DAY)
    sessions_left: list[int] = []

    def look(_deleted: int) -> None:
        sessions_left.append(conversations_in(database_url))

    assert await memory.delete_inactive(HOUR, batch=3, progress=look) == 7
    assert sessions_left == [8, 2, 0]


async def test_users_with_many_messages_are_deleted_few_at_a_time(
    database_url: str, clock: FakeClock
) -> None:
    """So that nobody who writes meanwhile waits for long."""
    many = [Message.user("x")] * 100
    async with SQLMemory.open(database_url, capacity=None, clock=clock) as memory:
        for user in range(3):
            for _ in range(3):
                await memory.extend(many, f"user-{user}")
        for user in range(3, 6):
            await say(memory, f"user-{user}")
        clock.advance(DAY)
        deleted: list[int] = []
        assert await memory.delete_inactive(HOUR, progress=deleted.append) == 6
    assert deleted == [1, 1, 1, 3]


def conversations_in(url: str) -> int:
    """Count as another process would, behind the back of the guard of tenancy."""
    parsed = make_url(url)
    engine = create_engine(parsed.set(drivername=SYNC_DRIVERS[parsed.get_backend_name()]))
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM conversations")
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])
    finally:
        connection.close()
        engine.dispose()


@pytest.mark.guarantee("G14")
async def test_a_user_who_comes_back_between_two_batches_is_kept_whole(
    memory: SQLMemory, clock: FakeClock, database_url: str
) -> None:
    users = [f"user-{n}" for n in range(4)]
    for user in users:
        await say(memory, user, session="1", times=2)
        await say(memory, user, session="2", times=2)
    clock.advance(DAY)
    came_back: list[str] = []

    async def come_back(user: str) -> None:
        async with SQLMemory.open(database_url, clock=clock) as other:
            await say(other, user, session="2")

    def once(_deleted: int) -> None:
        if not came_back:
            came_back.append(next(user for user in users if user != users[0]))
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, come_back(came_back[0])).result()

    assert await memory.delete_inactive(HOUR, batch=1, progress=once) == 3
    assert came_back == ["user-1"]
    assert [user.user_id for user in await memory.inactive_users(timedelta(0))] == came_back
    assert await seqs(memory, "user-1", "1") == [1, 2]
    assert await seqs(memory, "user-1", "2") == [1, 2, 3]


@pytest.mark.guarantee("G14")
@pytest.mark.parametrize(
    "order",
    [
        pytest.param(lambda users: users, id="with the clean-up"),
        pytest.param(lambda users: users[::-1], id="against the clean-up"),
        pytest.param(lambda users: users[::2] + users[1::2], id="twice over"),
    ],
)
async def test_no_user_is_left_partly_deleted_by_a_clean_up_among_concurrent_appends(
    memory: SQLMemory,
    clock: FakeClock,
    database_url: str,
    order: Callable[[list[str]], list[str]],
) -> None:
    """Each user has two old sessions and comes back to one of them while both are cleaned up.

    Either the user was kept, then nothing is missing; or deleted before coming back, then only
    the new message is there. The clean-ups count exactly the latter.
    """
    users = [f"user-{n:02}" for n in range(60)]
    for user in users:
        await say(memory, user, session="1", times=3)
        await say(memory, user, session="2", times=3)
    clock.advance(DAY)

    async with SQLMemory.open(database_url, clock=clock) as other:

        async def come_back(some: list[str]) -> dict[str, int | None]:
            returned = {}
            for n, user in enumerate(some):
                session = "12"[n % 2]
                returned[user] = (
                    await other.add(Message.user("back"), user, session_id=session)
                ).seq
            return returned

        ordered = order(users)
        first, second, *counts = await asyncio.gather(
            come_back(ordered[::2]),
            come_back(ordered[1::2]),
            memory.delete_inactive(HOUR, batch=2),
            other.delete_inactive(HOUR, batch=3),
        )
    returned = first | second
    assert set(returned) == set(users)
    for user, seq in returned.items():
        stored = [await seqs(memory, user, session) for session in ("1", "2")]
        if seq == 4:
            assert sorted(stored) == [[1, 2, 3], [1, 2, 3, 4]], f"{user} was partly deleted"
        else:
            assert seq == 1
            assert sorted(stored) == [[], [1]], f"{user} was partly deleted"
    assert sum(counts) == sum(seq == 1 for seq in returned.values())


async def test_erase_deletes_one_user_and_says_how_many_messages_that_were(
    memory: SQLMemory, clock: FakeClock
) -> None:
    for user in ("alice", "Alice", "alice "):
        await say(memory, user, session="1", times=3)
        await say(memory, user, session="2", times=2)
    assert await memory.erase("alice") == 5
    assert await memory.erase("alice") == 0
    assert await memory.erase("nobody") == 0
    assert await memory.last_activity("alice") is None
    assert await memory.sessions("alice") == []
    assert await seqs(memory, "alice", "1") == []
    for user in ("Alice", "alice "):
        assert await seqs(memory, user, "1") == [1, 2, 3]
        assert await memory.size(user, session_id="2") == 2
    await say(memory, "alice", session="1")
    assert await seqs(memory, "alice", "1") == [1]


async def test_erase_counts_the_messages_that_are_kept(database_url: str, clock: FakeClock) -> None:
    async with SQLMemory.open(database_url, capacity=4, clock=clock) as memory:
        await say(memory, "alice", session="pruned", times=9)
        await say(memory, "alice", session="cleared", times=2)
        await memory.clear("alice", session_id="cleared")
        await say(memory, "alice", session="cleared")
        assert await memory.erase("alice") == 5


@pytest.mark.parametrize("bad", ["", "a" * 256, "\x00", "\ud800", 7])
async def test_a_bad_user_id_is_refused_by_name(memory: SQLMemory, bad: Any) -> None:
    await say(memory, "alice")
    with pytest.raises(InvalidUserIdError, match="user_id"):
        await memory.erase(bad)
    with pytest.raises(InvalidUserIdError, match="user_id"):
        await memory.last_activity(bad)
    with pytest.raises(InvalidUserIdError, match="user_id"):
        await memory.sessions(bad)
    assert await seqs(memory, "alice") == [1]
