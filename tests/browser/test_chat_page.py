"""The chat page: users, conversations, hostile ids and contents, who is signed in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect
from starlette.applications import Starlette
from starlette.routing import Mount

from agno_sql.message import Message
from agno_sql.models.demo import DemoModel
from agno_sql.server import ApiKeyAuth, JWTAuth, create_app
from tests.agent.models import ScriptedModel, agent_of, asks, call, contents
from tests.browser.chat import Chat, PausingModel
from tests.server.test_auth import CHECKED, SECRET, token
from tests.support.http import served_app

if TYPE_CHECKING:
    from playwright.async_api import Page

    from agno_sql.memory.sql import SQLMemory
    from tests.browser.conftest import OpenPage, Serve
    from tests.support.browser import Console

HOSTILE_IDS = [
    "a/b",
    "?user_id=bob&x",
    "#/x",
    "%2F%00",
    "a b  c",
    "..",
    "👩‍👩‍👧",
    "שלום",
    "\u202eevil",
    "<b>'\"&amp;",
    "__proto__",
    "x" * 255,
]
HOSTILE_TEXT = """<script>window.hacked = 1</script>
<img src=x onerror="window.hacked = 2"><svg onload="window.hacked = 3">
[click me](javascript:window.hacked=4) <a href="javascript:window.hacked=5">x</a>
\u202eback to front\u202c 👩‍👩‍👧 שלום &lt;b&gt; {{7*7}} ${7*7} \0"""
LONG_WORD = "W" * 3000


@pytest.mark.guarantee("G87")
async def test_two_users_see_their_own_conversations_only(
    serve: Serve, open_page: OpenPage, memory: SQLMemory
) -> None:
    url = await serve(agent_of(DemoModel(), memory))
    alice = await Chat.entered(await open_page(), url, "alice")
    bob = await Chat.entered(await open_page(), url, "bob")
    await alice.ask("My name is Alice")
    await bob.ask("My name is Bob")
    await expect(alice.answers).to_have_text("Nice to meet you, Alice!")
    await expect(bob.answers).to_have_text("Nice to meet you, Bob!")
    await expect(alice.sessions).to_have_count(1)

    await alice.button("Switch user").click()
    await alice.enter("bob")
    await expect(alice.everything).to_have_text(["My name is Bob", "Nice to meet you, Bob!"])
    await expect(alice.sessions).to_have_count(1)
    await expect(alice.sessions).to_contain_text("My name is Bob")
    assert "Alice" not in await alice.page.locator("body").inner_text()
    await alice.page.reload()
    await expect(alice.everything).to_have_text(["My name is Bob", "Nice to meet you, Bob!"])


@pytest.mark.guarantee("G87")
async def test_users_and_conversations_of_any_name_are_found(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    for user in ("bob", HOSTILE_IDS[0]):
        for session in HOSTILE_IDS:
            # Only their ids tell them apart.
            await memory.add(Message.assistant(f"of {session}"), user, session_id=session)
    await memory.clear("bob", session_id=HOSTILE_IDS[-1])
    url = await serve(agent_of(ScriptedModel(*["noted"] * len(HOSTILE_IDS)), memory))
    chat = await Chat.entered(page, url, HOSTILE_IDS[0])
    await expect(chat.sessions).to_have_count(len(HOSTILE_IDS))
    for session in HOSTILE_IDS:
        await (
            page.locator("#sessions button")
            .filter(has=page.get_by_text(session, exact=True))
            .click()
        )
        await expect(chat.everything).to_have_text([re.compile(re.escape(f"of {session}"))])
        await page.reload()
        await expect(chat.everything).to_have_count(1)
        await chat.ask("and?")
        await expect(chat.answers).to_have_count(2)
        await chat.at_rest()
        await expect(chat.notice).to_have_count(0)
        stored = await memory.get_messages(HOSTILE_IDS[0], session_id=session)
        assert contents(stored) == [f"of {session}", "and?", "noted"]
    for user in HOSTILE_IDS[1:]:
        await memory.add(Message.user(f"I am {user}"), user)
        await chat.button("Switch user").click()
        await chat.enter(user)
        await expect(chat.everything).to_have_text(f"I am {user}")


async def test_conversations_are_begun_switched_and_paged(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    for number in range(35):
        await memory.add(Message.user(f"talk {number}"), "alice", session_id=f"s{number}")
    long = [Message.user(f"m{number}") for number in range(100)]
    await memory.extend(long, "alice", session_id="long")
    chat = await Chat.entered(page, await serve(agent_of(ScriptedModel("hi"), memory)))
    await expect(chat.sessions).to_have_count(30)
    await expect(chat.everything).to_have_text([f"m{n}" for n in range(50, 100)])
    await chat.button("Show earlier messages").click()
    await expect(chat.everything).to_have_text([f"m{n}" for n in range(100)])
    await expect(chat.button("Show earlier messages")).to_be_hidden()
    await chat.button("More conversations").click()
    await expect(chat.sessions).to_have_count(36)
    await expect(chat.button("More conversations")).to_be_hidden()
    await chat.sessions.last.click()
    await expect(chat.everything).to_have_text(["talk 0"])
    await expect(page.get_by_role("heading", level=1)).to_have_text("talk 0")

    await chat.button("New conversation").click()
    await expect(page.get_by_text("Hello, alice")).to_be_visible()
    await expect(chat.everything).to_have_count(0)
    await chat.ask("something new")
    await expect(chat.answers).to_have_text("hi")
    await expect(chat.sessions).to_have_count(37)
    await expect(chat.sessions.first).to_contain_text("something new")
    await page.go_back()
    await expect(chat.everything).to_have_text(["talk 0"])


async def test_a_conversation_is_cleared_only_when_that_is_confirmed(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    for number in range(31):  # more than a page of the list
        await memory.add(Message.user("keep me"), "alice", session_id=f"kept {number}")
    await memory.add(Message.user("secret"), "alice", session_id="cleared")
    chat = await Chat.entered(page, await serve(agent_of(ScriptedModel(), memory)))
    await expect(chat.everything).to_have_text(["secret"])
    await chat.button("More conversations").click()
    await expect(chat.sessions).to_have_count(32)
    await chat.button("Clear").click()
    await chat.button("Keep it").click()
    await page.keyboard.press("Escape")
    assert await memory.size("alice", session_id="cleared") == 1
    await chat.button("Clear").click()
    await page.get_by_role("dialog").get_by_role("button", name="Clear").click()
    await expect(page.get_by_text("Hello, alice")).to_be_visible()
    await expect(chat.sessions).to_have_count(31)
    await expect(chat.sessions.filter(has_text="secret")).to_have_count(0)
    assert await memory.size("alice", session_id="cleared") == 0
    assert await memory.size("alice", session_id="kept 0") == 1


def look_up(order: int) -> str:
    return HOSTILE_TEXT


@pytest.mark.guarantee("G88")
@pytest.mark.parametrize("is_reloaded", [False, True])
async def test_whatever_is_said_is_shown_as_text(
    serve: Serve, page: Page, memory: SQLMemory, is_reloaded: bool
) -> None:
    model = ScriptedModel(asks(call("look_up", order=1), text=HOSTILE_TEXT), HOSTILE_TEXT)
    agent = agent_of(model, memory, tools=[look_up])
    chat = await Chat.entered(page, await serve(agent))
    await chat.ask(HOSTILE_TEXT)
    await expect(chat.everything).to_have_count(3)
    await expect(chat.notice).to_have_count(0)
    if is_reloaded:
        await page.reload()
        await expect(chat.everything).to_have_count(3)
    await chat.tools.locator("summary").click()
    shown = [*await chat.everything.all_text_contents(), await chat.tools.text_content() or ""]
    for text in shown:
        for line in HOSTILE_TEXT.splitlines():
            assert line.rstrip("\0").rstrip() in text
    assert await page.evaluate("window.hacked") is None
    assert await page.locator("#transcript").locator("script, img, svg, a").count() == 0


async def test_a_small_part_of_markdown_is_shown_as_it_is_meant(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    text = (
        "# Plan\n\nSee **this** and *that*, `a < b`, [the map](https://maps.example/x?a=b).\n\n"
        "- one\n- two\n\n3. three\n4. four\n\n```python\nif a < b:\n    pass\n```\n\n"
        "2 * 3 * 4, snake_case, ** alone, http://plain.example/."
    )
    await memory.extend([Message.user("**not mine**"), Message.assistant(text)], "alice")
    chat = await Chat.entered(page, await serve(agent_of(ScriptedModel(), memory)))
    answer = chat.answers
    await expect(page.locator(".bubble")).to_have_text("**not mine**")
    await expect(answer.locator("strong")).to_have_text("this")
    await expect(answer.locator("em")).to_have_text("that")
    await expect(answer.locator("p code")).to_have_text("a < b")
    await expect(answer.locator("ul li")).to_have_text(["one", "two"])
    await expect(answer.locator("ol[start='3'] li")).to_have_text(["three", "four"])
    await expect(answer.locator("pre")).to_have_text("if a < b:\n    pass")
    links = answer.get_by_role("link")
    await expect(links).to_have_text(["the map", "http://plain.example/"])
    await expect(links.first).to_have_attribute("rel", "noopener noreferrer")
    await expect(answer).to_contain_text("the map (maps.example)")
    await expect(answer).to_contain_text("2 * 3 * 4, snake_case, ** alone,")


async def test_tool_calls_are_folded(serve: Serve, page: Page, memory: SQLMemory) -> None:
    def look_up_order(order: int) -> str:
        return "on its way"

    model = PausingModel(asks(call("look_up_order", order=7)), "It … comes.")
    agent = agent_of(model, memory, tools=[look_up_order])
    chat = await Chat.entered(page, await serve(agent))
    await chat.ask("Where is 7?")
    await expect(chat.tools).to_contain_text("look_up_order")
    await expect(page.get_by_text("on its way")).to_be_hidden()
    await chat.tools.locator("summary").click()
    await expect(page.get_by_role("group", name="Arguments")).to_have_text('{\n  "order": 7\n}')
    await expect(page.get_by_role("group", name="Result")).to_have_text("on its way")
    model.gate.opened.set()
    await expect(chat.answers).to_have_text("It … comes.")


async def test_long_words_stay_within_the_page(
    serve: Serve, open_page: OpenPage, memory: SQLMemory
) -> None:
    code = f"```\n{LONG_WORD}\n```"
    await memory.extend([Message.user(LONG_WORD), Message.assistant(LONG_WORD + "\n" + code)], "a")
    page = await open_page(viewport={"width": 360, "height": 740})
    chat = await Chat.entered(page, await serve(agent_of(ScriptedModel(), memory)), "a")
    await expect(chat.everything).to_have_count(2)
    for place in ("html", "#scroll", "#side"):
        fits = f"document.querySelector('{place}').scrollWidth <= innerWidth"
        assert await page.evaluate(fits), place


class TestWithTokens:
    """The server knows its callers; the page asks who they are."""

    async def sign_in(self, page: Page, text: str, user: str = "") -> None:
        await page.get_by_label("Token", exact=True).fill(text)
        await page.get_by_label("User,").fill(user)
        await page.get_by_role("button", name="Continue").click()

    @pytest.mark.guarantee("G87")
    async def test_a_token_names_its_user_and_is_kept_in_the_tab_only(
        self, serve: Serve, page: Page, memory: SQLMemory, console: Console
    ) -> None:
        console.expect("401")
        console.expect("403")
        await memory.add(Message.user("of bob"), "bob")
        auth = [JWTAuth.of_secret(SECRET, **CHECKED)]
        await page.goto(await serve(agent_of(ScriptedModel("hi"), memory), auth=auth))
        for text, user, told in [
            ("forged", "", "not valid"),
            (token(), "bob", "does not allow"),
        ]:
            await self.sign_in(page, text, user)
            await expect(page.get_by_role("alert").first).to_contain_text(told)
        await self.sign_in(page, token())
        await expect(page.locator("#user-name")).to_have_text("alice")
        chat = Chat(page)
        await chat.ask("hello")
        await page.reload()
        await expect(chat.everything).to_have_text(["hello", "hi"])
        assert await page.evaluate("JSON.stringify(localStorage)") == "{}"
        other_tab = await page.context.new_page()
        await other_tab.goto(page.url)
        await expect(other_tab.get_by_label("Token", exact=True)).to_be_focused()

    async def test_a_key_that_is_revoked_is_asked_for_again_and_nothing_is_lost(
        self, serve: Serve, page: Page, memory: SQLMemory, console: Console
    ) -> None:
        console.expect("422")
        console.expect("401")
        console.expect("404")  # the conversation that is not stored yet
        old, text = await memory.api_keys.create("old", is_admin=False)
        auth = [ApiKeyAuth(memory.api_keys)]
        await page.goto(await serve(agent_of(ScriptedModel("hi"), memory), auth=auth))
        await self.sign_in(page, text)
        await expect(page.get_by_role("alert").first).to_contain_text("say whom you act for")
        await self.sign_in(page, text, "alice")
        chat = Chat(page)
        await expect(page.get_by_text("Hello, alice")).to_be_visible()
        await memory.api_keys.revoke(old.id)
        await chat.ask("hello")
        await expect(page.get_by_role("alert").first).to_contain_text("not valid")
        _, text = await memory.api_keys.create("new", is_admin=False)
        await self.sign_in(page, text, "alice")
        await expect(chat.everything).to_have_text(["hello", "hi"])
        await chat.at_rest()
        (session,) = await memory.sessions("alice")
        assert session.message_count == 2


async def test_the_page_works_wherever_it_is_mounted(page: Page, memory: SQLMemory) -> None:
    app = create_app(agent_of(ScriptedModel("hi"), memory))
    host = Starlette(routes=[Mount("/my/agent", app)], lifespan=app.router.lifespan_context)
    async with served_app(host) as client:
        chat = await Chat.entered(page, f"{client.base_url}/my/agent/")
        await chat.ask("hello")
        await expect(chat.answers).to_have_text("hi")
        await page.close()
