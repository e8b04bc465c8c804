"""What is added is read back, in order and unchanged, or nothing is stored at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

import pytest

from agno_sql.errors import InvalidMessageError, InvalidOptionError
from agno_sql.message import Message
from agno_sql.testing.promises.opening import MemoryTest, OpenMemory, numbered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agno_sql.memory.protocol import Memory


class ReadingPromises(MemoryTest):
    """Adding and reading."""

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


class WholenessPromises(MemoryTest):
    """All or nothing."""

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
