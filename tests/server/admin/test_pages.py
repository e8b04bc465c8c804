"""What the operator's pages show, whatever is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import httpx
import psycopg
import pytest

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall
from tests.faults.checks import sync_url
from tests.server.admin.shop import HOSTILE, LINE, chat_of, said, shop_agent, spread
from tests.server.admin.visitor import Page, Visitor, visiting
from tests.support.http import served

if TYPE_CHECKING:
    from collections.abc import Iterable

ALICE: Final = {"user_id": "alice"}
TALK: Final = {"user_id": "alice", "session_id": "default"}
HOME: Final = frozenset({"script", "img", "iframe", "object", "style", "base"})


async def every_page_from(visitor: Visitor, first: str, **params: str) -> list[Page]:
    """Return a page and all that its "next" links lead to."""
    pages = [await visitor.see(first, **params)]
    while more := [link for link in pages[-1].links if "cursor=" in link or "last_run=" in link]:
        assert len(pages) < 50
        pages.append(Page(await visitor.client.get(more[-1])))
        if len(more) == 1 and "First page" in pages[-1].text and "Next page" not in pages[-1].text:
            break
    return pages


def linked(pages: Iterable[Page], page: str, parameter: str) -> list[str]:
    """Return what a parameter of the links to *page* says, in their order."""
    urls = [httpx.URL(link) for shown in pages for link in shown.links]
    return [
        url.params[parameter]
        for url in urls
        if url.path == f"/admin/{page}" and parameter in url.params and "cursor" not in url.params
    ]


class TestHostileIds:
    """Are text, and lead where they should."""

    @pytest.mark.guarantee("G96")
    async def test_every_link_of_every_page_leads_to_its_user_and_session(
        self, memory: SQLMemory
    ) -> None:
        for user in HOSTILE:
            for session in ("default", user):
                await memory.add(Message.user(f"of {user} in {session}"), user, session_id=session)
        async with visiting(shop_agent(memory), memory) as visitor:
            listed = [await visitor.see("users")]
            assert sorted(linked(listed, "user", "user_id")) == sorted(HOSTILE)
            for link in [link for link in listed[0].links if "/user?" in link]:
                user = httpx.URL(link).params["user_id"]
                shown = Page(await visitor.client.get(link))
                assert sorted(linked([shown], "session", "session_id")) == sorted({"default", user})
                for onward in [one for one in shown.links if "/session?" in one]:
                    session = httpx.URL(onward).params["session_id"]
                    talk = Page(await visitor.client.get(onward))
                    assert f"of {user} in {session}" in talk.text
                for onward in shown.links:
                    response = await visitor.client.get(onward)
                    assert response.status_code == 200, (user, onward)

    async def test_are_found_by_search(self, memory: SQLMemory) -> None:
        for user in HOSTILE:
            await memory.add(Message.user("hi"), user)
        async with visiting(shop_agent(memory), memory) as visitor:
            for user in HOSTILE:
                shown = await visitor.see("users", prefix=user)
                expected = sorted(one for one in HOSTILE if one.startswith(user))
                assert linked([shown], "user", "user_id") == expected
                assert shown.fields["prefix"] == user

    async def test_that_cannot_be_seen_are_told_by_their_numbers(self, memory: SQLMemory) -> None:
        for user in (" ", "\u200b", "\u3000\u00a0"):
            await memory.add(Message.user("hi"), user)
        async with visiting(shop_agent(memory), memory) as visitor:
            shown = await visitor.see("users")
        for told in ("U+0020", "U+200B", "U+3000 U+00A0"):
            assert told in shown.text


@pytest.mark.guarantee("G96")
async def test_whatever_is_stored_shows_as_text(memory: SQLMemory) -> None:
    """In every place where something of others is shown, and there is no element of theirs."""
    line = LINE + "\x00\x1b[31m\ud800\u202e"
    call = ToolCall(LINE, LINE, line)
    await memory.extend(
        [
            Message.system(line),
            Message.user(line, name=LINE),
            Message.assistant(line, [call]),
            Message.tool(line, tool_call_id=LINE, name=LINE),
            Message.tool(line, tool_call_id="another", name=LINE),
        ],
        LINE,
        session_id=LINE,
    )
    broken = shop_agent(memory, ValueError(LINE))
    with pytest.raises(ValueError, match="script"):
        await broken.run("x", LINE, session_id=LINE, run_id="<script>")
    async with visiting(shop_agent(memory), memory) as visitor:
        plain = await visitor.see("users")
        key = {"user_id": LINE, "session_id": LINE}
        for page, params in [
            ("", {}),
            ("users", {"prefix": LINE}),
            ("user", {"user_id": LINE}),
            ("session", key),
            ("runs", key),
            ("clear", key),
            ("erase", {"user_id": LINE}),
        ]:
            shown = await (visitor.see(page, **params) if page else visitor.overview())
            assert shown.status == 200
            assert LINE in shown.text, page
            allowed = plain.elements.count("img")
            assert [one for one in shown.elements if one in HOME] == ["img"] * allowed
            assert "\x00" not in shown.html
            assert "\x1b" not in shown.html
        missing = await visitor.see("user", user_id=LINE + "2")
        assert missing.status == 404
        assert missing.elements.count("script") == 0


class TestLists:
    """Come in pages that neither repeat nor omit anything."""

    @pytest.mark.guarantee("G97")
    async def test_of_users_by_activity_and_by_search(self, memory: SQLMemory) -> None:
        users = [f"user-{n:03}" for n in range(120)]
        for user in users:
            await memory.add(Message.user("hi"), user)
        async with visiting(shop_agent(memory), memory) as visitor:
            pages = await every_page_from(visitor, "users")
            assert linked(pages, "user", "user_id") == users[::-1]
            assert [len(linked([page], "user", "user_id")) for page in pages] == [50, 50, 20]
            pages = await every_page_from(visitor, "users", prefix="user-0")
            assert linked(pages, "user", "user_id") == users[:100]
            assert len(pages) == 2
            nobody = await visitor.see("users", prefix="User")
            assert "No user id begins with User" in nobody.text

    @pytest.mark.guarantee("G97")
    async def test_of_sessions_and_of_runs(self, memory: SQLMemory) -> None:
        agent = shop_agent(memory)
        sessions = [f"s{n:03}" for n in range(101)]
        for session in sessions:
            await memory.add(Message.user("hi"), "alice", session_id=session)
        for n in range(51):
            await agent.run("hi", "bob", run_id=f"r{n}")
        async with visiting(agent, memory) as visitor:
            pages = await every_page_from(visitor, "user", **ALICE)
            assert linked(pages, "session", "session_id") == sessions[::-1]
            pages = await every_page_from(visitor, "runs", user_id="bob", session_id="default")
            after = [int(seq) for seq in linked(pages, "session", "after")]
            kept = await memory.operator.runs("bob", session_id="default")
            assert after == [run.first_seq - 1 for run in kept]
            assert len(pages) == (1 if len(kept) <= 50 else 2)

    @pytest.mark.guarantee("G97")
    async def test_of_messages_backwards_and_forwards(self, database_url: str) -> None:
        async with SQLMemory.open(database_url, capacity=None) as memory:
            await memory.extend([Message.user(f"<{n}>") for n in range(1, 151)], "alice")
            async with visiting(shop_agent(memory), memory) as visitor:
                page = await visitor.see("session", **TALK)
                back = [page]
                while older := [link for link in page.links if "before=" in link]:
                    page = Page(await visitor.client.get(older[0]))
                    back.append(page)
                forth = [page]
                while newer := [link for link in page.links if "&after=" in link]:
                    page = Page(await visitor.client.get(newer[0]))
                    forth.append(page)
        everything = list(range(1, 151))
        assert [seq for page in reversed(back) for seq in shown_in(page)] == everything
        assert [seq for page in forth for seq in shown_in(page)] == everything
        assert shown_in(back[0]) == everything[-50:]
        assert (len(back), len(forth)) == (3, 3), "the last page, though full, leads to no other"


def shown_in(page: Page) -> list[int]:
    return [n for n in range(1, 151) if f"<{n}>" in page.text]


class TestATranscript:
    """Shows who said what, and what tools did."""

    async def test_folds_each_tool_call_together_with_its_result(self, memory: SQLMemory) -> None:
        await chat_of(memory, "alice")
        async with visiting(shop_agent(memory), memory) as visitor:
            shown = await visitor.see("session", **TALK)
            assert shown.elements.count("details") == 1
            assert shown.elements.count("li") == 4, "the result stands with its call"
            assert '{"order_id": 1017}' in shown.text
            assert "has left the warehouse" in shown.text
            assert "430 tokens" in shown.text
            alone = await visitor.see("session", **TALK, after=2)
            assert "has left the warehouse" in alone.text, "a result whose call is elsewhere"
            cut = await visitor.see("session", **TALK, before=3)
            assert "no result here" in cut.text

    async def test_tells_runs_with_status_tokens_and_error(self, memory: SQLMemory) -> None:
        await chat_of(memory, "alice")
        async with visiting(shop_agent(memory), memory) as visitor:
            shown = await visitor.see("runs", **TALK)
        text = " ".join(shown.text.split())
        assert text.index("ask-again") < text.index("completed")
        for told in ("failed ModelTimeoutError", "did not answer in time", "872", "30"):
            assert told in text

    async def test_cuts_what_is_long_and_shows_it_whole_when_asked(self, memory: SQLMemory) -> None:
        long = "a" * 25_000 + "end"
        await memory.extend([Message.user("before"), Message.user(long)], "alice")
        async with visiting(shop_agent(memory), memory) as visitor:
            shown = await visitor.see("session", **TALK)
            assert "aend" not in shown.text
            assert "show 5,003 more characters" in shown.text
            (link,) = {link for link in shown.links if "seq=2" in link}
            whole = Page(await visitor.client.get(link))
        assert long in whole.text
        assert "before" not in whole.text
        assert "Whole transcript" in whole.text

    async def test_of_a_session_without_messages_says_so(self, memory: SQLMemory) -> None:
        await memory.add(Message.user("x"), "alice")
        await memory.clear("alice")
        async with visiting(shop_agent(memory), memory) as visitor:
            assert "No messages are kept here" in (await visitor.see("session", **TALK)).text
            assert "No runs are kept here" in (await visitor.see("runs", **TALK)).text


class TestTheOverview:
    """Tells what happens, and keeps nobody waiting."""

    @pytest.mark.guarantee("G98")
    async def test_draws_and_tables_each_day(self, memory: SQLMemory) -> None:
        for at in spread(60, days=20):
            await memory.add(said("hi", at), f"user-{at.day % 3}")
        await chat_of(memory, "alice")
        async with visiting(shop_agent(memory), memory) as visitor:
            shown = await visitor.overview()
        assert shown.elements.count("figure") == 4
        assert shown.elements.count("desc") == 4
        text = " ".join(shown.text.split())
        found = await memory.operator.statistics()
        today = found.days[-1]
        assert f"{today.day:%d %b}: {today.messages} messages" in text
        assert f"{today.day:%d %b}: 872 input tokens, 30 output tokens" in text
        assert f"{today.day:%d %b}: 1 failed run" in text
        assert sum(day.messages for day in found.days) == 65
        assert "65 in 30 days" in text
        assert "ModelTimeoutError" in text

    async def test_of_an_empty_database_shows_zeros(self, memory: SQLMemory) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            shown = await visitor.overview()
            assert "Nobody is here yet" in (await visitor.see("users")).text
        assert "0 in 30 days" in shown.text
        assert ": none." in shown.text
        assert "No run that is kept has failed" in shown.text

    @pytest.mark.guarantee("G98")
    async def test_does_not_wait_for_statistics_that_take_long(self, postgres_url: str) -> None:
        async with (
            SQLMemory.open(postgres_url) as memory,
            visiting(shop_agent(memory), memory) as visitor,
        ):
            with psycopg.connect(sync_url(postgres_url)) as other:
                other.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
                shown = await visitor.get("")
                assert "for the first time" in shown.text
                assert shown.headers["refresh"] == "2"
                assert "for the first time" in (await visitor.see("")).text
            assert "Messages a day" in (await visitor.overview()).text
            response = await visitor.get("")
            assert "refresh" not in response.headers

    async def test_leaves_nothing_behind_if_the_server_stops_meanwhile(
        self, postgres_url: str
    ) -> None:
        """The server under test looks for tasks that are left."""
        async with SQLMemory.open(postgres_url) as memory:
            with psycopg.connect(sync_url(postgres_url)) as other:
                other.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
                async with served(shop_agent(memory)) as client:
                    assert "for the first time" in (await Visitor(client).see("")).text

    async def test_says_so_if_there_are_none(self, sqlite_memory: SQLMemory) -> None:
        async with served(shop_agent(sqlite_memory)) as client:
            await sqlite_memory.add(Message.user("x"), "alice")
            await break_runs(sqlite_memory)
            assert "can't be read at the moment" in (await Visitor(client).overview()).text
            shown = await Visitor(client).get("")
        assert "refresh" not in shown.headers


async def break_runs(memory: SQLMemory) -> None:
    """Take a table away, as no migration of ours does."""
    from sqlalchemy import text

    async with memory._database._engine.begin() as conn:  # noqa: SLF001  (to break it)
        await conn.execute(text("ALTER TABLE runs RENAME TO gone"))
        await conn.commit()


class TestWhatIsNotThere:
    """Is told by a page with the status of the error."""

    @pytest.mark.parametrize(
        "page, params, status",
        [
            ("user", {"user_id": "nobody"}, 404),
            ("user", {}, 422),
            ("user", {"user_id": "a\nb"}, 422),
            ("user", ALICE | {"cursor": "x"}, 422),
            ("users", {"cursor": "x"}, 422),
            ("users", {"prefix": "a\nb"}, 422),
            ("session", ALICE, 422),
            ("session", ALICE | {"session_id": "other"}, 404),
            ("session", TALK | {"before": "x"}, 422),
            ("session", TALK | {"seq": "-1"}, 422),
            ("runs", TALK | {"last_seq": "1", "last_run": "a b"}, 422),
            ("clear", ALICE | {"session_id": "other"}, 404),
            ("erase", {"user_id": "nobody"}, 404),
            ("clean-up", {"days": "x"}, 422),
            ("clean-up", {"days": "0"}, 422),
            ("clean-up", {"days": "36501"}, 422),
            ("nothing", {}, 404),
        ],
    )
    async def test_is_a_page_too(
        self, sqlite_memory: SQLMemory, page: str, params: dict[str, str], status: int
    ) -> None:
        await sqlite_memory.add(Message.user("x"), "alice")
        async with served(shop_agent(sqlite_memory)) as client:
            shown = await Visitor(client).see(page, **params)
        assert shown.status == status
        assert "main" in shown.elements


@pytest.mark.parametrize("path", ["/assistant", "/наш бот (v=1)"])
async def test_pages_work_below_another_path(sqlite_memory: SQLMemory, path: str) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from agno_sql.server import create_app
    from tests.support.http import served_app

    await sqlite_memory.add(Message.user("x"), "alice")
    host = Starlette(routes=[Mount(path, create_app(shop_agent(sqlite_memory)))])
    async with served_app(host) as client:
        visitor = Visitor(client, f"{path}/admin")
        response = await client.get(f"{path}/admin")
        assert unquote(response.headers["location"]) == f"{path}/admin/"
        response = await visitor.get("users")
        base = quote(path, safe="/()=")
        assert f"Path={base}/admin;" in response.headers["set-cookie"]
        shown = Page(response)
        files = [f"{base}/static/{name}" for name in ("base.css", "admin.css", "icon.svg")]
        assert f"{base}/" in shown.links, "the chat page"
        assert all(f'"{file}"' in shown.html for file in files)
        for link in [*shown.links, *files]:
            assert (await client.get(link)).status_code == 200
        response = await visitor.submit("erase", {"confirmation": "alice"}, user_id="alice")
        assert "Erased" in (await visitor.follow(response)).text


def test_the_future_and_the_past_are_told_in_one_unit() -> None:
    from agno_sql.server.admin.rendering import ago, duration, short, size

    now = datetime.now(UTC)
    for seconds, told in [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (86400 * 1500, "1,500 days ago"),
    ]:
        assert ago(now - timedelta(seconds=seconds), now) == told
    for number, text in [(0, "0"), (999, "999"), (1000, "1k"), (999_600, "1M"), (12_345, "12.3k")]:
        assert short(number) == text
    assert size(1_500_000_000_000_000) == "1.5e+03 TB"
    assert size(512) == "512 B"
    for took, text in [(0.0042, "4 ms"), (1.25, "1.2 s"), (125, "2 min 5 s")]:
        assert duration(timedelta(seconds=took)) == text
