"""What an operator asks: sessions, the last activity, users who are gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from agno_sql.errors import CorruptRecordError, InvalidOptionError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Session, UserActivity
from tests.memory.talk import DAY, HOUR, say
from tests.store.examined import plant

if TYPE_CHECKING:
    from tests.support.clock import FakeClock


async def test_the_last_activity_is_that_of_the_latest_session(
    memory: SQLMemory, clock: FakeClock
) -> None:
    assert await memory.last_activity("alice") is None
    await say(memory, "alice")
    first = clock.now()
    assert await memory.last_activity("alice") == first
    second = clock.advance(timedelta(microseconds=1))
    await say(memory, "alice", session="work")
    clock.advance(HOUR)
    await say(memory, "bob")
    assert await memory.last_activity("alice") == second
    assert await memory.last_activity("Alice") is None
    third = clock.advance(HOUR)
    await say(memory, "alice")
    assert await memory.last_activity("alice") == third
    assert third.utcoffset() == timedelta(0)


async def test_an_old_message_that_is_stored_now_is_activity_now(
    memory: SQLMemory, clock: FakeClock
) -> None:
    old = Message(role="user", content="", created_at=datetime(2001, 1, 1, tzinfo=UTC))
    stored = await memory.add(old, "alice")
    assert stored.created_at == old.created_at
    assert await memory.last_activity("alice") == clock.now()


async def test_sessions_are_listed_with_the_latest_activity_first(
    memory: SQLMemory, clock: FakeClock
) -> None:
    start = clock.now()
    await say(memory, "alice", session="old", times=3)
    await say(memory, "bob", session="old")
    await say(memory, "alice", session="other")
    later = clock.advance(HOUR)
    await say(memory, "alice", session="old", times=2)
    assert await memory.sessions("alice") == [
        Session(
            user_id="alice",
            session_id="old",
            message_count=5,
            created_at=start,
            last_active_at=later,
            title="hello",
        ),
        Session(
            user_id="alice",
            session_id="other",
            message_count=1,
            created_at=start,
            last_active_at=start,
            title="hello",
        ),
    ]
    assert await memory.sessions("carol") == []
    assert await memory.sessions() == []
    await memory.add(Message.user("hello"))
    assert [(s.user_id, s.session_id) for s in await memory.sessions()] == [("default", "default")]


@pytest.mark.parametrize("padding", range(7))
async def test_a_session_is_called_by_how_its_oldest_kept_message_of_the_user_begins(
    memory: SQLMemory, padding: int
) -> None:
    """Also where the beginning ends in the midst of what no database can store as it is."""
    asked = "x" * (90 + padding) + "\0\ud800\x10" + "y" * 1000
    await memory.extend(
        [Message.system("be kind"), Message.assistant("hi"), Message.user(asked)], "alice"
    )
    await memory.add(Message.user("not hers"), "bob")
    await memory.add(Message.assistant("hi"), "alice", session_id="answers only")
    found = {session.session_id: session.title for session in await memory.sessions("alice")}
    title = found["default"]
    assert title is not None
    assert asked.startswith(title)
    assert 90 + padding <= len(title) <= 100
    assert found["answers only"] is None
    assert await memory.session("alice") in await memory.sessions("alice")
    await memory.clear("alice")
    (cleared,) = [s for s in await memory.sessions("alice") if s.session_id == "default"]
    assert cleared.title is None


async def test_pages_of_sessions_show_each_once_even_if_their_times_are_equal(
    memory: SQLMemory, clock: FakeClock
) -> None:
    for hour in range(3):
        for n in range(5):
            await say(memory, "alice", session=f"{'aBä😀 '[n]}{hour}")
            await say(memory, "bob", session=f"{n}")
        clock.advance(HOUR)
    pages: list[list[Session]] = []
    after = None
    while page := await memory.sessions("alice", limit=4, after=after):
        pages.append(page)
        after = page[-1]
    found = [session for page in pages for session in page]
    assert [len(page) for page in pages] == [4, 4, 4, 3]
    assert {s.session_id for s in found} == {f"{c}{hour}" for c in "aBä😀 " for hour in range(3)}
    assert len(found) == 15
    assert [s.last_active_at for s in found] == sorted(
        (s.last_active_at for s in found), reverse=True
    )
    assert await memory.sessions("alice") == found


async def test_inactive_users_are_listed_with_the_longest_idle_first(
    memory: SQLMemory, clock: FakeClock
) -> None:
    start = clock.now()
    await say(memory, "carol", times=2)
    await say(memory, "back", session="old")
    clock.advance(HOUR)
    await say(memory, "bob", session="1", times=3)
    await say(memory, "carol", session="2", times=4)
    clock.advance(DAY)
    await say(memory, "alice")
    await say(memory, "back", session="new")
    assert await memory.inactive_users(DAY - HOUR) == [
        UserActivity(user_id="bob", sessions=1, messages=3, last_active_at=start + HOUR),
        UserActivity(user_id="carol", sessions=2, messages=6, last_active_at=start + HOUR),
    ]
    assert await memory.inactive_users(DAY + HOUR / 2) == []
    clock.advance(HOUR)
    everybody = await memory.inactive_users(timedelta(0))
    assert [user.user_id for user in everybody] == ["bob", "carol", "alice", "back"]
    assert await memory.inactive_users(timedelta(0), limit=0) == []


async def test_pages_of_inactive_users_show_each_once_even_if_their_times_are_equal(
    memory: SQLMemory, clock: FakeClock
) -> None:
    expected: list[str] = []
    for hour in range(4):
        users = [f"{prefix}{hour}" for prefix in (" ", "B", "a", "ä", "😀")]
        for user in reversed(users):
            await say(memory, user, session="first")
            await say(memory, user, session="second")
        expected += users
        clock.advance(HOUR)
    await say(memory, "a0", session="third")
    expected.remove("a0")
    clock.advance(HOUR)
    pages: list[list[UserActivity]] = []
    after = None
    while page := await memory.inactive_users(HOUR * 3 / 2, limit=3, after=after):
        pages.append(page)
        after = page[-1]
    found = [user for page in pages for user in page]
    assert [len(page) for page in pages] == [3, 3, 3, 3, 3, 3, 1]
    assert [user.user_id for user in found] == expected
    assert {user.sessions for user in found} == {2}
    assert await memory.inactive_users(HOUR * 3 / 2) == found


async def test_the_last_activity_never_goes_back(memory: SQLMemory, clock: FakeClock) -> None:
    await say(memory, "alice")
    latest = clock.now()
    clock.advance(-DAY)
    await say(memory, "alice")
    assert await memory.last_activity("alice") == latest


async def test_a_page_goes_on_after_the_last_of_the_page_before_only(memory: SQLMemory) -> None:
    with pytest.raises(InvalidOptionError, match="last Session of the page before"):
        await memory.sessions("alice", after=cast("Any", "work"))
    with pytest.raises(InvalidOptionError, match="last UserActivity of the page before"):
        await memory.inactive_users(DAY, after=cast("Any", "alice"))


async def test_a_time_that_is_none_is_a_corrupt_record(sqlite_url: str) -> None:
    async with SQLMemory.open(sqlite_url) as memory:
        await memory.add(Message.user("x"), "alice")
        plant(sqlite_url, "UPDATE conversations SET last_active_at = 5")
        with pytest.raises(CorruptRecordError, match="a session of user 'alice'"):
            await memory.sessions("alice")
        with pytest.raises(CorruptRecordError, match="session 'default' of user 'alice'"):
            await memory.session("alice", session_id="default")
        with pytest.raises(CorruptRecordError, match="when a user was last active"):
            await memory.inactive_users(timedelta(0))
