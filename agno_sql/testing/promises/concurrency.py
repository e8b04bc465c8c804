"""What holds when many tasks use one memory at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agno_sql.message import Message
from agno_sql.testing.promises.opening import MemoryTest, OpenMemory, seq_of

if TYPE_CHECKING:
    from agno_sql.memory.protocol import Memory


class ConcurrencyPromises(MemoryTest):
    """Tasks that write, read, clear and are cancelled at once."""

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


def assert_gapless(messages: list[Message], *, capacity: int) -> None:
    """Fail unless the seqs follow one another and are no more than *capacity*."""
    seqs = [seq_of(message) for message in messages]
    assert len(seqs) <= capacity
    assert not seqs or seqs == list(range(seqs[0], seqs[0] + len(seqs)))
