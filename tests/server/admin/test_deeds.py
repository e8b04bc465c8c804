"""Deleting by the operator's pages: what was shown before is what happens."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.server.admin import deeds
from agno_sql.server.admin.rendering import visible
from tests.server.admin.shop import HOSTILE, chat_of, shop_agent
from tests.server.admin.visitor import Visitor, visiting
from tests.support.clock import FakeClock
from tests.support.http import served
from tests.support.runner import Gate, rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.server.admin.visitor import Page

TALK: Final = {"user_id": "alice", "session_id": "default"}


def counts(page: Page) -> dict[str, int]:
    """Return the numbers that a dry run shows."""
    text = re.sub(r"\s+", "", page.text)
    found = re.findall(r"(Users|Sessions|Messages|Runs)([\d,]+)", text)
    return {name: int(number.replace(",", "")) for name, number in found}


def stored(url: str) -> dict[str, int]:
    """Return how many rows there are."""
    tables = {"Sessions": "conversations", "Messages": "messages", "Runs": "runs"}
    found = {name: len(rows(url, table)) for name, table in tables.items()}
    users = {row["user_id"] for row in rows(url, "conversations")}
    return {"Users": len(users)} | found


def difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: before[name] - after[name] for name in before}


@pytest.mark.guarantee("G93")
async def test_what_clearing_shows_before_is_what_it_deletes(
    memory: SQLMemory, database_url: str
) -> None:
    await chat_of(memory, "alice")
    await chat_of(memory, "alice", "other")
    await chat_of(memory, "bob")
    async with visiting(shop_agent(memory), memory) as visitor:
        dry = await visitor.see("clear", **TALK)
        before = stored(database_url)
        assert counts(dry) == {"Sessions": 1, "Messages": 5, "Runs": 2}
        assert before["Messages"] == 15, "a dry run deletes nothing"
        for wrong in ("", "alice", "Default", "default ", " default"):
            response = await visitor.submit("clear", {"confirmation": wrong}, **TALK)
            assert response.status_code == 422
            assert "nothing was deleted" in response.text
        assert stored(database_url) == before
        response = await visitor.submit("clear", {"confirmation": "default"}, **TALK)
        done = await visitor.follow(response)
        assert "Cleared: 5 messages and 2 runs were deleted." in done.text
        assert "No messages are kept here" in done.text
        assert "Cleared" not in (await visitor.see("session", **TALK)).text, "it is said once"
        deleted = difference(before, stored(database_url))
        assert deleted == {"Users": 0, "Sessions": 0, "Messages": 5, "Runs": 2}
    assert await memory.size("alice", session_id="other") == 5


@pytest.mark.guarantee("G93")
async def test_what_erasing_shows_before_is_what_it_deletes(
    memory: SQLMemory, database_url: str
) -> None:
    await chat_of(memory, "alice")
    await chat_of(memory, "alice", "other")
    await chat_of(memory, "alice2")
    async with visiting(shop_agent(memory), memory) as visitor:
        dry = await visitor.see("erase", user_id="alice")
        before = stored(database_url)
        assert counts(dry) == {"Sessions": 2, "Messages": 10, "Runs": 4}
        for wrong in ("", "alice2", "Alice", "alice "):
            response = await visitor.submit("erase", {"confirmation": wrong}, user_id="alice")
            assert response.status_code == 422
        assert stored(database_url) == before
        response = await visitor.submit("erase", {"confirmation": "alice"}, user_id="alice")
        done = await visitor.follow(response)
        assert "2 sessions, 10 messages, 4 runs were deleted" in done.text
        deleted = difference(before, stored(database_url))
        assert deleted == counts(dry) | {"Users": 1}
        assert (await visitor.see("erase", user_id="alice")).status == 404


@pytest.mark.guarantee("G96")
async def test_whoever_has_a_hostile_id_can_be_cleared_and_erased(memory: SQLMemory) -> None:
    """By what the page shows, typed or copied."""
    for user in HOSTILE:
        await memory.add(Message.user("hi"), user, session_id=user)
    async with visiting(shop_agent(memory), memory) as visitor:
        for number, user in enumerate(HOSTILE):
            typed = visible(user) if number % 2 else user
            key = {"user_id": user, "session_id": user}
            response = await visitor.submit("clear", {"confirmation": typed}, **key)
            assert "Cleared: 1 message" in (await visitor.follow(response)).text
            response = await visitor.submit("erase", {"confirmation": typed}, user_id=user)
            assert visible(user) in (await visitor.follow(response)).text
            assert len(await memory.operator.users()) == len(HOSTILE) - number - 1


async def test_a_run_that_is_at_work_is_ended_by_both(sqlite_memory: SQLMemory) -> None:
    for page, params, typed in [
        ("clear", TALK, "default"),
        ("erase", {"user_id": "alice"}, "alice"),
    ]:
        gate = Gate()
        async with served(shop_agent(sqlite_memory, gate.think)) as client:
            visitor = Visitor(client)
            body = {"user_id": "alice", "message": "hi"}
            asking = asyncio.create_task(client.post("/chat", json=body))
            await gate.entered.wait()
            assert counts(await visitor.see(page, **params))["Runs"] == 1
            assert "running" in (await visitor.see("runs", **TALK)).text
            response = await visitor.submit(page, {"confirmation": typed}, **params)
            assert response.status_code == 303
            gate.opened.set()
            answered = await asking
        assert (answered.status_code, answered.json()["code"]) == (409, "run_lost")
        assert await sqlite_memory.size("alice") == 0


class TestCleanUp:
    """Deletes who has been away, and nobody else."""

    @pytest.fixture
    async def memory(self, database_url: str) -> AsyncIterator[SQLMemory]:
        """Three users of a hundred days ago, one of whom is back today, and one of last week."""
        clock = FakeClock(datetime.now(UTC) - timedelta(days=100))
        async with SQLMemory.open(database_url, clock=clock) as before:
            for user in ("gone", "gone-too", "back"):
                await chat_of(before, user)
                await chat_of(before, user, "other")
            clock.advance(timedelta(days=93))
            await chat_of(before, "lately")
        async with SQLMemory.open(database_url) as now:
            await now.add(Message.user("hi"), "back")
            yield now

    @pytest.mark.guarantee("G93")
    async def test_deletes_those_that_were_shown_before(
        self, memory: SQLMemory, database_url: str
    ) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            assert counts(await visitor.see("clean-up")) == {}
            assert "Nobody has been inactive" in (await visitor.see("clean-up", days=101)).text
            dry = await visitor.see("clean-up", days=90)
            before = stored(database_url)
            assert counts(dry) == {"Users": 2, "Sessions": 4, "Messages": 20, "Runs": 8}
            assert "gone-too" in dry.text
            for wrong in ("", "3", "2.0", "gone"):
                response = await visitor.submit("clean-up", {"confirmation": wrong}, days=90)
                assert response.status_code == 422
            assert stored(database_url) == before
            response = await visitor.submit("clean-up", {"confirmation": "2"}, days=90)
            done = await visitor.follow(response)
            assert "2 users deleted." in done.text
            assert difference(before, stored(database_url)) == counts(dry)
            assert "Nobody has been inactive" in done.text

    @pytest.mark.guarantee("G93")
    async def test_does_not_delete_more_than_was_shown_whatever_comes_between(
        self, memory: SQLMemory
    ) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            dry = await visitor.see("clean-up", days=90)
            await memory.add(Message.user("back again"), "gone-too")
            fields = dry.fields | {"confirmation": "2"}
            response = await visitor.post("clean-up", fields, params={"days": 90})
            assert response.status_code == 422
            assert "1 user inactive" in response.text
            # Nobody who left since can be among those of the time that was shown.
            fields |= {"confirmation": "1"}
            done = await visitor.follow(await visitor.post("clean-up", fields, params={"days": 1}))
            assert "1 user deleted." in done.text
        left = {user.user_id for user in await memory.operator.users()}
        assert left == {"gone-too", "back", "lately"}

    async def test_says_so_if_it_takes_too_long_for_one_go(
        self, memory: SQLMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deeds, "_WITHIN", timedelta(0))
        monkeypatch.setattr("agno_sql.store.retention._MOST_MESSAGES", 1)
        async with visiting(shop_agent(memory), memory) as visitor:
            response = await visitor.submit("clean-up", {"confirmation": "2"}, days=90)
            done = await visitor.follow(response)
            assert "1 user deleted. Not all yet" in done.text
            assert "1 user inactive" in done.text
            response = await visitor.submit("clean-up", {"confirmation": "1"}, days=90)
            assert "1 user deleted." in (await visitor.follow(response)).text

    @pytest.mark.parametrize(
        "until",
        [
            "",
            "x",
            "2026-01-01T00:00:00",
            "9999-01-01T00:00:00+00:00",
            "0001-01-01T00:00:00+23:59",
        ],
    )
    async def test_wants_a_time_in_the_past(self, memory: SQLMemory, until: str) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            fields = {"csrf": await visitor.csrf(), "until": until, "confirmation": "3"}
            response = await visitor.post("clean-up", fields, params={"days": 90})
            assert response.status_code == 422
        assert len(await memory.operator.users()) == 4


@pytest.mark.guarantee("G94")
async def test_what_was_done_is_logged_with_the_key_and_without_what_was_said(
    sqlite_memory: SQLMemory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agno_sql")
    await sqlite_memory.add(Message.user("a secret"), "ali\u202ece")
    async with visiting(shop_agent(sqlite_memory), sqlite_memory) as visitor:
        key, *_ = await sqlite_memory.api_keys.every()
        typed = {"confirmation": "ali\u202ece"}
        await visitor.submit("erase", typed, user_id="ali\u202ece")
    (line,) = [told for told in caplog.messages if "erased" in told]
    assert f"the operator with key {key.id} erased user 'ali\\u202ece': 1 session" in line
    assert "a secret" not in caplog.text


async def test_no_one_else_can_make_a_page_say_that_something_was_done(
    sqlite_memory: SQLMemory,
) -> None:
    async with served(shop_agent(sqlite_memory)) as client:
        visitor = Visitor(client)
        await visitor.see("users")
        for forged in ("RXJhc2Vk", "RXJhc2Vk.", f"RXJhc2Vk.{'0' * 64}", ".", "é".encode().hex()):
            client.cookies.set("agno_sql_notice", forged, path="/admin")
            assert "notice" not in (await visitor.see("users")).html
