"""Races and values at the edges of what the store takes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agno_sql.errors import InvalidMessageError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message


async def test_a_clear_beside_the_first_append_keeps_the_count_right(postgres_url: str) -> None:
    async with SQLMemory.open(postgres_url) as memory:
        for n in range(40):
            user = f"user-{n}"
            await asyncio.gather(
                memory.clear(user), memory.add(Message.user("x"), user), memory.clear(user)
            )
            assert await memory.size(user) == len(await memory.get_messages(user)), user


@pytest.mark.parametrize(
    "told",
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)],
    ids=["first", "last"],
)
async def test_the_first_and_the_last_time_read_back(database_url: str, told: datetime) -> None:
    async with SQLMemory.open(database_url) as memory:
        await memory.add(Message(role="user", content="x", created_at=told), "alice")
        assert [m.created_at for m in await memory.get_messages("alice")] == [told]


def test_a_time_beyond_utc_is_an_invalid_message() -> None:
    late = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
    with pytest.raises(InvalidMessageError, match="created_at"):
        Message(role="user", content="x", created_at=late)
