"""API keys in the database."""

from __future__ import annotations

import pytest

from agno_sql.errors import InvalidOptionError
from agno_sql.memory.sql import SQLMemory
from tests.support.clock import FakeClock
from tests.support.runner import rows


@pytest.mark.guarantee("G70")
async def test_a_key_is_known_by_its_text_which_is_stored_nowhere(database_url: str) -> None:
    async with SQLMemory.open(database_url) as memory:
        key, text = await memory.api_keys.create("shop", is_admin=True)
        assert await memory.api_keys.check(text) == key
        assert (key.name, key.is_admin, key.revoked_at) == ("shop", True, None)
    secret = text.removeprefix(f"agno_sql_{key.id}_")
    assert len(secret) == 43
    (row,) = rows(database_url, "api_keys")
    assert secret not in str(row)


async def test_no_two_keys_are_alike(database_url: str) -> None:
    async with SQLMemory.open(database_url) as memory:
        made = [await memory.api_keys.create("same") for _ in range(3)]
        assert len({text for _, text in made}) == 3
        assert {key.id for key in await memory.api_keys.every()} == {key.id for key, _ in made}


async def test_a_revoked_key_stays_listed_with_the_time(database_url: str) -> None:
    clock = FakeClock()
    async with SQLMemory.open(database_url, clock=clock) as memory:
        key, text = await memory.api_keys.create("shop")
        assert await memory.api_keys.revoke(key.id)
        assert not await memory.api_keys.revoke(key.id)
        assert not await memory.api_keys.revoke("unknown")
        assert await memory.api_keys.check(text) is None
        (listed,) = await memory.api_keys.every()
    assert (listed.id, listed.revoked_at) == (key.id, clock.now())


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256, "\0"])
async def test_a_name_has_to_be_printable(database_url: str, name: str) -> None:
    async with SQLMemory.open(database_url) as memory:
        with pytest.raises(InvalidOptionError, match="name"):
            await memory.api_keys.create(name)
        assert await memory.api_keys.every() == []
