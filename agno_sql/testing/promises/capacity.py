"""How many messages a session keeps, which ones, and what clearing leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agno_sql.message import Message, ToolCall
from agno_sql.testing.promises.opening import MemoryTest, OpenMemory, numbered

if TYPE_CHECKING:
    from agno_sql.memory.protocol import Memory


class CapacityPromises(MemoryTest):
    """What is pruned."""

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


class ClearingPromises(MemoryTest):
    """What is cleared."""

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


async def kept(memory: Memory) -> list[tuple[int | None, str]]:
    """Return seq and content of what alice's session holds."""
    return numbered(await memory.get_messages("alice"))


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
