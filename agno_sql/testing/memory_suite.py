"""What every Memory promises, as a test class to inherit.

    class TestMyMemory(MemorySuite):
        @pytest.fixture
        def open_memory(self) -> OpenMemory:
            return lambda capacity=100: MyMemory.open(capacity=capacity)

Each test opens one memory, which has to be empty.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import pytest
import pytest_asyncio

from agno_sql.errors import (
    InvalidInputError,
    InvalidMessageError,
    InvalidOptionError,
    InvalidSessionIdError,
    InvalidUserIdError,
)
from agno_sql.message import Message, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

    from agno_sql.memory.protocol import Memory


class OpenMemory(Protocol):
    """Opens an empty memory of the given capacity and closes it at the end."""

    def __call__(self, capacity: int | None = 100) -> AbstractAsyncContextManager[Memory]:
        """Return the memory as an asynchronous context manager."""
        ...


NFC_NAME: Final = "Zo\u00eb"
NFD_NAME: Final = "Zoe\u0308"

# Ids that a careless comparison, pattern, path or statement takes for one another.
LOOKALIKE_IDS: Final = (
    *("alice", "Alice", "ALICE", "alice ", " alice", "alice\u00a0", "alice\u200b", "alic", "al_ce"),
    *("al%", "%", "_", "*", "default ", "Default", "None", "null", "0", "00", "0.0", "1", "true"),
    *("alice'; DROP TABLE messages; --", "' OR '1'='1", '" OR ""="', "alice\\", "alice\\'"),
    *("alice/bob", "alice/../bob", "../alice", "/", "alice:bob", "alice,bob", "{alice}", "$1", "?"),
    *(NFC_NAME, NFD_NAME, "stra\u00dfe", "strasse", "\u0130", "i\u0307", "I", "i", "\u0131"),
    *("\u202ealice", "\ufeffalice", "\ufb01", "fi", "\uff41lice", "\u0430lice"),
    *("\U0001f600", "\U0001f600\ufe0f", "\U0001f600" * 255, "\U0001f600" * 254 + "\U0001f601"),
    *("a" * 255, "a" * 254, "a" * 254 + "A"),
)

TOO_LONG_OR_SHORT: Final = ("", "a" * 256, "\U0001f600" * 256)
FORBIDDEN_CHARACTERS: Final = ("\x00", "a\x00b", "a\nb", "\t", "\x1f", "\x7f", "\x85", "\x9f")
LONE_SURROGATES: Final = ("\ud83d", "a\udc00", "\udcff\ud800")
NO_STRINGS: Final = (7, b"alice", ["alice"], 1.5, True)
BAD_IDS: Final = TOO_LONG_OR_SHORT + FORBIDDEN_CHARACTERS + LONE_SURROGATES + NO_STRINGS

# Texts that a database, an encoding or an escape of either tends to change.
HARD_TEXTS: Final = (
    *("", " ", "\n", " \t\r\n ", "trailing  ", "NULL", "null", "0", "''", "\\", "\\x00", "\\u0000"),
    *("\x00", "a\x00b", "\x00\x00", "\\\x00", "\x01\x02\x1f\x7f\x80\x9f"),
    *("\x10", "\x10\x10", "\x100000", "\x10D800", "\x10d800", "a\x10\x00\x10", "\x10\\", "\x100"),
    *("\ud800", "\udfff", "\udc00\ud800", "a\udcffb", "\ud83d\ude00", "\U0001f600\ud83d"),
    *("\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c", "\u0645\u0631\u062d\u0628\u0627"),
    *(NFC_NAME, NFD_NAME, "z\u0335\u0321\u0322a\u0334\u0353l\u0337go", "\u2028\u2029\ufeff"),
    *("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U00020bb7", "\U0010ffff", "\uffff\ufffe"),
    *("%s %(x)s :x $1 ? {x} {{x}}", "'; DROP TABLE messages; --", '{"a": "\\u0000"}', "\x1b[31m"),
)


@pytest.mark.asyncio
class MemorySuite:
    """Inherit it, override the fixture ``open_memory``, and run pytest."""

    @pytest.fixture
    def open_memory(self, *_args: Any, **_fixtures: Any) -> OpenMemory:
        """Return what opens the memory under test; your override may ask for fixtures."""
        raise NotImplementedError("override the fixture open_memory")

    @pytest_asyncio.fixture
    async def memory(self, open_memory: OpenMemory) -> AsyncIterator[Memory]:
        """Yield an empty memory that keeps 100 messages a session."""
        async with open_memory() as memory:
            yield memory

    # Adding and reading

    async def test_an_added_message_is_returned_as_it_is_read_back(self, memory: Memory) -> None:
        before = datetime.now(UTC)
        stored = await memory.add(Message.user("hello", name="Alice"), "alice")
        assert (stored.seq, stored.role, stored.content, stored.name) == (
            1,
            "user",
            "hello",
            "Alice",
        )
        assert stored.created_at is not None
        assert before <= stored.created_at <= datetime.now(UTC)
        assert await memory.get_messages("alice") == [stored]

    async def test_messages_are_numbered_from_1_and_read_oldest_first(self, memory: Memory) -> None:
        first = await memory.add(Message.user("1"), "alice")
        more = await memory.extend([Message.assistant("2"), Message.user("3")], "alice")
        last = await memory.add(Message.assistant("4"), "alice")
        stored = await memory.get_messages("alice")
        assert stored == [first, *more, last]
        assert numbered(stored) == [(1, "1"), (2, "2"), (3, "3"), (4, "4")]

    async def test_extend_takes_any_iterable_and_returns_what_it_stored(
        self, memory: Memory
    ) -> None:
        stored = await memory.extend((Message.user(str(n)) for n in range(3)), "alice")
        assert numbered(stored) == [(1, "0"), (2, "1"), (3, "2")]
        assert await memory.get_messages("alice") == stored

    async def test_extending_by_nothing_stores_nothing(self, memory: Memory) -> None:
        assert await memory.extend([], "alice") == []
        assert await memory.extend(iter(()), "alice") == []
        assert await memory.size("alice") == 0
        assert (await memory.add(Message.user("first"), "alice")).seq == 1

    async def test_a_user_who_was_never_seen_has_no_messages(self, memory: Memory) -> None:
        await memory.add(Message.user("hello"), "bob")
        await memory.clear("alice")
        assert await memory.get_messages("alice") == []
        assert await memory.get_messages("bob", session_id="other") == []
        assert await memory.size("alice") == 0
        assert await memory.size("bob", session_id="other") == 0

    async def test_without_a_user_it_is_the_default_user_and_session(self, memory: Memory) -> None:
        stored = [await memory.add(Message.user("1"))]
        stored += await memory.extend([Message.user("2")], "default")
        stored += await memory.extend([Message.user("3")], session_id="default")
        assert await memory.get_messages() == stored
        assert await memory.get_messages("default", session_id="default") == stored
        assert await memory.size() == await memory.size("default") == 3
        await memory.clear()
        assert await memory.get_messages("default") == []

    async def test_a_limit_returns_the_newest_messages(self, memory: Memory) -> None:
        stored = await memory.extend([Message.user(str(n)) for n in range(5)], "alice")
        for limit in range(6):
            assert await memory.get_messages("alice", limit=limit) == stored[5 - limit :]
        assert await memory.get_messages("alice", limit=2**70) == stored
        assert await memory.get_messages("alice", limit=None) == stored

    async def test_pages_before_a_seq_walk_back_to_the_first_message(self, memory: Memory) -> None:
        stored = await memory.extend([Message.user(str(n)) for n in range(7)], "alice")
        pages: list[list[Message]] = []
        before: int | None = None
        while page := await memory.get_messages("alice", limit=3, before=before):
            pages.insert(0, page)
            before = page[0].seq
        assert pages == [stored[:1], stored[1:4], stored[4:]]
        assert await memory.get_messages("alice", before=4) == stored[:3]
        assert await memory.get_messages("alice", before=1) == []
        assert await memory.get_messages("alice", before=99, limit=2) == stored[-2:]

    @pytest.mark.parametrize("limit", [-1, -(2**40)])
    async def test_a_negative_limit_is_refused(self, memory: Memory, limit: int) -> None:
        with pytest.raises(InvalidOptionError, match="limit"):
            await memory.get_messages("alice", limit=limit)

    @pytest.mark.parametrize("capacity", [0, -1, True, False, 2.5, "5"])
    async def test_a_capacity_that_is_no_number_from_1_is_refused(
        self, open_memory: OpenMemory, capacity: Any
    ) -> None:
        with pytest.raises(InvalidOptionError, match="capacity"):
            async with open_memory(capacity):
                pass

    async def test_what_is_returned_is_the_callers_to_change(self, memory: Memory) -> None:
        given = [Message.user("1"), Message.user("2")]
        returned = await memory.extend(given, "alice")
        stored = list(returned)
        given.clear()
        returned.clear()
        (await memory.get_messages("alice")).clear()
        (await memory.get_messages("alice")).append(Message.user("3"))
        assert await memory.get_messages("alice") == stored
        assert await memory.size("alice") == 2

    async def test_a_given_time_is_kept_to_the_microsecond(self, memory: Memory) -> None:
        india = timezone(timedelta(hours=5, minutes=30))
        times = [
            datetime(1969, 7, 20, 20, 17, 40, 1, UTC),
            datetime(2026, 3, 1, 4, 15, 0, 999_999, india),
            datetime(2000, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 30, 23, 59, 59, 999_999, UTC),
        ]
        given = [Message(role="user", content="", created_at=time) for time in times]
        await memory.extend(given, "alice")
        stored = [message.created_at for message in await memory.get_messages("alice")]
        assert stored == times
        assert {time.utcoffset() for time in stored if time} == {timedelta(0)}

    async def test_a_given_seq_is_ignored(self, memory: Memory) -> None:
        stored = await memory.add(Message(role="user", content="", seq=77), "alice")
        stored = await memory.add(stored, "alice")
        assert stored.seq == 2
        assert [m.seq for m in await memory.get_messages("alice")] == [1, 2]

    # All or nothing

    async def test_extend_stores_nothing_if_one_message_is_none(self, memory: Memory) -> None:
        kept = await memory.add(Message.user("kept"), "alice")
        for wrong in ("text", None, {"role": "user", "content": "text"}, 7):
            batch = cast("list[Message]", [Message.user("1"), wrong, Message.user("3")])
            with pytest.raises(InvalidMessageError):
                await memory.extend(batch, "alice")
            with pytest.raises(InvalidMessageError):
                await memory.add(cast("Message", wrong), "alice")
        assert await memory.get_messages("alice") == [kept]
        assert (await memory.add(Message.user("next"), "alice")).seq == 2

    async def test_extend_stores_nothing_if_its_iterable_fails(self, memory: Memory) -> None:
        def failing() -> Iterator[Message]:
            yield Message.user("1")
            raise LookupError("the source broke")

        with pytest.raises(LookupError, match="the source broke"):
            await memory.extend(failing(), "alice")
        assert await memory.size("alice") == 0
        assert (await memory.add(Message.user("first"), "alice")).seq == 1

    # Concurrency

    async def test_concurrent_adds_of_many_users_are_numbered_once_each_without_gaps(
        self, memory: Memory
    ) -> None:
        """10 users, 100 messages each, all at once: seq is exactly 1..100 for every user."""
        users = [f"user-{n}" for n in range(10)]
        returned = await asyncio.gather(
            *(memory.add(Message.user(f"{user} {n}"), user) for n in range(100) for user in users)
        )
        for user in users:
            stored = await memory.get_messages(user)
            assert [m.seq for m in stored] == list(range(1, 101))
            assert {m.content for m in stored} == {f"{user} {n}" for n in range(100)}
            mine = [m for m in returned if m.content.startswith(f"{user} ")]
            assert sorted(mine, key=seq_of) == stored

    async def test_concurrent_extends_never_interleave(self, memory: Memory) -> None:
        async def write(writer: int) -> None:
            parts = range(writer % 4 + 1)
            await memory.extend([Message.user(f"{writer}.{part}") for part in parts], "alice")

        await asyncio.gather(*(write(n) for n in range(36)))
        stored = await memory.get_messages("alice")
        assert [m.seq for m in stored] == list(range(1, 91))
        blocks = "".join("\n" * m.content.endswith(".0") + f"{m.content} " for m in stored).split(
            "\n"
        )
        expected = [" ".join(f"{n}.{part}" for part in range(n % 4 + 1)) for n in range(36)]
        assert sorted(block.strip() for block in blocks[1:]) == sorted(expected)

    async def test_a_cancelled_extend_is_stored_whole_or_not_at_all_and_the_next_goes_on(
        self, memory: Memory
    ) -> None:
        """Each extend is cancelled a little later than the one before it, also at its end."""
        returned: list[Message] = []
        async with asyncio.timeout(20):  # a lock that a cancelled extend keeps shows here
            for patience in range(0, 800, 16):
                batch = [Message.user(f"{patience} {part}") for part in "ab"]
                task = asyncio.create_task(memory.extend(batch, "alice"))
                for _ in range(patience):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    returned += await task
                except asyncio.CancelledError:
                    continue
            returned.append(await memory.add(Message.user("last"), "alice"))
        stored = await memory.get_messages("alice")
        assert [m.seq for m in stored] == list(range(1, len(stored) + 1))
        assert [m for m in stored if m in returned] == returned
        words = [m.content.split() for m in stored[:-1]]
        assert [part for _, part in words] == ["a", "b"] * (len(words) // 2)
        assert [n for n, _ in words[::2]] == [n for n, _ in words[1::2]]

    async def test_concurrent_writers_readers_and_clears_leave_a_whole_session(
        self, open_memory: OpenMemory
    ) -> None:
        """Whatever a reader sees is a run of numbers without a gap, no longer than the capacity."""
        async with open_memory(10) as memory:

            async def read() -> None:
                for _ in range(10):
                    assert_gapless(await memory.get_messages("alice"), capacity=10)

            async def write(writer: int) -> None:
                for n in range(10):
                    await memory.extend([Message.user(f"{writer}.{n}")] * 2, "alice")

            async def clear() -> None:
                for _ in range(5):
                    await memory.clear("alice")

            await asyncio.gather(*(write(n) for n in range(5)), read(), read(), clear())
            stored = await memory.get_messages("alice")
            assert_gapless(stored, capacity=10)
            assert (await memory.add(Message.user("last"), "alice")).seq == 101
            assert await memory.size("alice") == min(len(stored) + 1, 10)

    # Capacity

    async def test_the_newest_messages_are_kept(self, open_memory: OpenMemory) -> None:
        async with open_memory(5) as memory:
            for n in range(1, 11):
                make = Message.user if n % 2 else Message.assistant
                await memory.add(make(str(n)), "alice")
            assert await kept(memory) == [(6, "6"), (7, "7"), (8, "8"), (9, "9"), (10, "10")]

    async def test_a_batch_larger_than_the_capacity_leaves_its_end(
        self, open_memory: OpenMemory
    ) -> None:
        async with open_memory(3) as memory:
            returned = await memory.extend([Message.user(str(n)) for n in range(1, 9)], "alice")
            assert [m.seq for m in returned] == [1, 2, 3, 4, 5, 6, 7, 8]
            assert await memory.get_messages("alice") == returned[5:]
            assert await memory.size("alice") == 3

    async def test_without_a_capacity_everything_is_kept(self, open_memory: OpenMemory) -> None:
        async with open_memory(None) as memory:
            await memory.extend([tool("x"), *[Message.user("") for _ in range(249)]], "alice")
            await memory.add(Message.user(""), "alice")
            assert [m.seq for m in await memory.get_messages("alice")] == list(range(1, 252))
            assert await memory.size("alice") == 251

    async def test_each_session_has_the_whole_capacity(self, open_memory: OpenMemory) -> None:
        async with open_memory(2) as memory:
            for session in ("default", "work"):
                for user in ("alice", "bob"):
                    batch = [Message.user(str(n)) for n in range(3)]
                    await memory.extend(batch, user, session_id=session)
            for session in ("default", "work"):
                for user in ("alice", "bob"):
                    stored = await memory.get_messages(user, session_id=session)
                    assert numbered(stored) == [(2, "1"), (3, "2")]

    @pytest.mark.parametrize(
        "capacity, given, expected",
        [
            pytest.param(1, "u1 a2", "a2", id="capacity 1 keeps the newest"),
            pytest.param(3, "s1 u2 a3 u4", "s1 a3 u4", id="system messages stay and count"),
            pytest.param(3, "u1 a2 s3 u4 s5", "s3 u4 s5", id="system messages stay where they are"),
            pytest.param(2, "s1 s2 s3 u4", "s1 s2 s3 u4", id="the newest stays beside too many"),
            pytest.param(2, "s1 s2 s3 u4 a5", "s1 s2 s3 a5", id="and goes when it is not newest"),
            pytest.param(1, "u1 s2", "s2", id="a newest system message protects no other"),
            pytest.param(2, "s1 s2 s3", "s1 s2 s3", id="only system messages"),
            pytest.param(3, "u1 a2:x t3:x u4", "a2:x t3:x u4", id="an exchange that fits stays"),
            pytest.param(3, "a1:x t2:x u3 a4", "u3 a4", id="a result never stays without its call"),
            pytest.param(4, "a1:xyz t2:x t3:y t4:z u5", "u5", id="nor do any of several results"),
            pytest.param(3, "s1 a2:x t3:x u4", "s1 u4", id="nor behind a system message"),
            pytest.param(3, "a1:x s2 t3:x u4", "s2 u4", id="nor behind one in the exchange"),
            pytest.param(
                2, "u1 a2:xyz t3:x t4:y", "a2:xyz t3:x t4:y", id="newest exchange is whole"
            ),
            pytest.param(2, "u1 a2:x u3 t4:x", "a2:x u3 t4:x", id="with what came in between"),
            pytest.param(
                1, "a1:x t2:x u3 a4:x t5:x", "a4:x t5:x", id="a call id that is used again"
            ),
            pytest.param(
                2, "a1:x a2:y t3:x", "a1:x a2:y t3:x", id="the call it answers, not the last"
            ),
            pytest.param(2, "a1:x a2:x t3:x", "a2:x t3:x", id="the nearest call of that id"),
            pytest.param(2, "u1 a2:xy t3:x t4:y a5", "a5", id="an exchange goes when it is over"),
            pytest.param(1, "u1 u2 t3:x", "t3:x", id="a newest result without a call stays"),
            pytest.param(2, "u1 t2:x u3 u4", "u3 u4", id="an older one goes"),
            pytest.param(3, "u1 t2:x t3:y u4", "u4", id="several older ones go"),
            pytest.param(3, "u1 u2 t3:x u4", "u2 t3:x u4", id="one behind a kept message stays"),
            pytest.param(2, "t1:x u2", "t1:x u2", id="nothing goes before the capacity is passed"),
        ],
    )
    async def test_the_capacity_prunes_the_oldest_and_leaves_no_torn_exchange(
        self, open_memory: OpenMemory, capacity: int, given: str, expected: str
    ) -> None:
        """``a2:xy`` is an assistant message that calls x and y, ``t3:x`` the result of x."""
        async with open_memory(capacity) as memory:
            for message in conversation(given):
                await memory.add(message, "one by one")
            await memory.extend(conversation(given), "all at once")
            for user in ("one by one", "all at once"):
                stored = await memory.get_messages(user)
                assert " ".join(m.content for m in stored) == expected
                assert [str(m.seq) for m in stored] == [m.content.split(":")[0][1:] for m in stored]
                assert await memory.size(user) == len(stored)

    # Clearing

    async def test_clear_empties_one_session_which_goes_on_with_the_next_seq(
        self, memory: Memory
    ) -> None:
        for user in ("alice", "bob"):
            for session in ("default", "work"):
                batch = [Message.system("s"), Message.user("u")]
                await memory.extend(batch, user, session_id=session)
        await memory.clear("alice")
        await memory.clear("alice")
        assert await memory.get_messages("alice") == []
        assert await memory.size("alice") == 0
        assert await memory.size("alice", session_id="work") == 2
        assert await memory.size("bob") == await memory.size("bob", session_id="work") == 2
        assert (await memory.add(Message.user("next"), "alice")).seq == 3
        assert await memory.size("alice") == 1

    async def test_a_cleared_session_has_its_whole_capacity_again(
        self, open_memory: OpenMemory
    ) -> None:
        async with open_memory(3) as memory:
            await memory.extend([Message.user(str(n)) for n in range(1, 5)], "alice")
            await memory.clear("alice")
            for n in range(5, 10):
                await memory.add(Message.user(str(n)), "alice")
                assert await memory.size("alice") == min(n - 4, 3)
            assert await kept(memory) == [(7, "7"), (8, "8"), (9, "9")]

    async def test_clear_all_deletes_everything_and_every_session_starts_anew(
        self, memory: Memory
    ) -> None:
        for user in ("alice", "bob", None):
            await memory.extend([Message.system("s"), Message.user("u")], user)
        await memory.add(Message.user("u"), "alice", session_id="work")
        await memory.clear_all()
        for user in ("alice", "bob", None):
            assert await memory.get_messages(user) == []
            assert await memory.size(user) == 0
            assert (await memory.add(Message.user("first"), user)).seq == 1
        assert await memory.size("alice", session_id="work") == 0

    # Tenancy

    async def test_the_sessions_of_a_user_are_kept_apart(self, memory: Memory) -> None:
        async def write(session: str) -> Message:
            return await memory.add(Message.user(session), "alice", session_id=session)

        await self._assert_kept_apart(
            write,
            lambda session: memory.get_messages("alice", session_id=session),
            lambda session: memory.clear("alice", session_id=session),
        )

    async def test_users_with_ids_that_look_alike_are_kept_apart(self, memory: Memory) -> None:
        await self._assert_kept_apart(
            lambda user: memory.add(Message.user(user), user), memory.get_messages, memory.clear
        )

    async def _assert_kept_apart(
        self,
        write: Callable[[str], Coroutine[Any, Any, Message]],
        read: Callable[[str], Coroutine[Any, Any, list[Message]]],
        clear: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        assert len(set(LOOKALIKE_IDS)) == len(LOOKALIKE_IDS)
        stored = {id_: [await write(id_), await write(id_)] for id_ in LOOKALIKE_IDS}
        for id_ in LOOKALIKE_IDS:
            assert numbered(stored[id_]) == [(1, id_), (2, id_)]
            assert await read(id_) == stored[id_]
        for cleared in LOOKALIKE_IDS[::2]:
            await clear(cleared)
            stored[cleared] = []
        for id_ in LOOKALIKE_IDS:
            assert await read(id_) == stored[id_]

    async def test_user_and_session_are_never_run_together(self, memory: Memory) -> None:
        keys = [
            (text[:cut], text[cut:])
            for text in ("a/b/c", "a:b:c", "a,b,c", "aaaa", "a\u00a0\u00a0b")
            for cut in range(1, len(text))
        ]
        for user, session in keys:
            await memory.add(Message.user(f"{user}|{session}"), user, session_id=session)
        for (user, session), other in combinations(keys, 2):
            stored = await memory.get_messages(user, session_id=session)
            assert numbered(stored) == [(1, f"{user}|{session}")]
            assert (user, session) != other

    @pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
    async def test_a_bad_user_id_is_refused_by_name_and_stores_nothing(
        self, memory: Memory, bad: Any
    ) -> None:
        expected = "255" if isinstance(bad, str) and bad in TOO_LONG_OR_SHORT else ""
        await self._assert_refused(memory, InvalidUserIdError, f"user_id.*{expected}", bad, "s")

    @pytest.mark.parametrize("bad", [*BAD_IDS, None], ids=ascii)
    async def test_a_bad_session_id_is_refused_by_name_and_stores_nothing(
        self, memory: Memory, bad: Any
    ) -> None:
        expected = "255" if isinstance(bad, str) and bad in TOO_LONG_OR_SHORT else ""
        await self._assert_refused(
            memory, InvalidSessionIdError, f"session_id.*{expected}", "u", bad
        )

    async def _assert_refused(
        self, memory: Memory, error: type[InvalidInputError], words: str, user: Any, session: Any
    ) -> None:
        kept = await memory.add(Message.user("kept"), "u", session_id="s")
        for call in (
            lambda: memory.add(Message.user(""), user, session_id=session),
            lambda: memory.extend([Message.user("")], user, session_id=session),
            lambda: memory.extend([], user, session_id=session),
            lambda: memory.get_messages(user, session_id=session),
            lambda: memory.clear(user, session_id=session),
            lambda: memory.size(user, session_id=session),
        ):
            with pytest.raises(error, match=words):
                await cast("Any", call)()
        assert await memory.get_messages("u", session_id="s") == [kept]
        assert (await memory.add(Message.user(""), "u", session_id="s")).seq == 2
        assert await memory.size() == 0

    # Lossless content

    async def test_any_text_is_read_back_as_it_was_in_every_field(self, memory: Memory) -> None:
        for text in HARD_TEXTS:
            await memory.clear("alice")
            call = ToolCall(id=text or "-", name=text or "-", arguments=text)
            given = [
                Message.system(text),
                Message.user(text, name=text),
                Message.assistant(text, [call, ToolCall("2", "f", text)]),
                Message.tool(text, tool_call_id=text or "-", name=text),
            ]
            stored = await memory.extend(given, "alice")
            assert [replace(m, seq=None, created_at=None) for m in stored] == given
            assert await memory.get_messages("alice") == stored

    async def test_every_character_is_read_back(self, memory: Memory) -> None:
        everything = "".join(map(chr, range(0x3000))) + "".join(map(chr, range(0xD7F0, 0x10100)))
        stored = await memory.add(Message.user(everything), "alice")
        assert (stored.content, stored.name) == (everything, None)
        (read,) = await memory.get_messages("alice")
        assert read.content == everything

    async def test_a_message_of_five_megabytes_is_read_back(self, memory: Memory) -> None:
        text = "0123456789abcde\u00e9" * (5 * 1024 * 1024 // 16)
        await memory.add(Message.user(text), "alice")
        (read,) = await memory.get_messages("alice")
        assert read.content == text

    async def test_a_message_keeps_all_its_fields(self, memory: Memory) -> None:
        calls = (
            ToolCall(id="call_1", name="look_up", arguments='{"b": 1,  "a": 1.0, "a": 2}'),
            ToolCall(id="call_2", name="look_up", arguments="not json"),
            ToolCall(id="call_1", name="look_up", arguments=""),
        )
        given = [
            Message(role="assistant", content="", tool_calls=calls, name="agent", run_id="run-1"),
            Message(role="tool", content="{}", tool_call_id="call_2", name="look_up", run_id="!~"),
            Message(role="user", content="", name=""),
            Message(role="assistant", content="answer"),
        ]
        await memory.extend(given, "alice")
        stored = await memory.get_messages("alice")
        assert [replace(m, seq=None, created_at=None) for m in stored] == given
        assert [call.arguments for call in stored[0].tool_calls] == [c.arguments for c in calls]


def numbered(messages: list[Message]) -> list[tuple[int | None, str]]:
    """Return seq and content of each message."""
    return [(message.seq, message.content) for message in messages]


def seq_of(message: Message) -> int:
    """Return the seq of a stored message."""
    assert message.seq is not None, "a stored message has a seq"
    return message.seq


async def kept(memory: Memory) -> list[tuple[int | None, str]]:
    """Return seq and content of what alice's session holds."""
    return numbered(await memory.get_messages("alice"))


def assert_gapless(messages: list[Message], *, capacity: int) -> None:
    """Fail unless the seqs follow one another and are no more than *capacity*."""
    seqs = [seq_of(message) for message in messages]
    assert len(seqs) <= capacity
    assert not seqs or seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def tool(call_id: str) -> Message:
    """Return the result of a tool call."""
    return Message.tool("", tool_call_id=call_id)


def conversation(shorthand: str) -> list[Message]:
    """Return messages from words like ``u1`` and ``a2:xy``, which are their contents as well."""
    messages = []
    for word in shorthand.split():
        ids = word.partition(":")[2]
        match word[0]:
            case "s":
                messages.append(Message.system(word))
            case "u":
                messages.append(Message.user(word))
            case "a":
                messages.append(Message.assistant(word, [ToolCall(i, "f", "{}") for i in ids]))
            case _:
                messages.append(Message.tool(word, tool_call_id=ids))
    return messages
