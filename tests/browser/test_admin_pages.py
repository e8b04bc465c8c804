"""The operator's pages in Chromium: every page and action, whatever ids and contents."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import pytest
from playwright.async_api import expect

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.server import ApiKeyAuth
from agno_sql.server.admin.rendering import visible
from tests.browser.chat import Chat
from tests.server.admin.shop import HOSTILE, LINE, chat_of, said, shop_agent, spread
from tests.support.browser import Console, check_accessibility
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.browser.conftest import OpenPage, Serve

LOOKS: Final[list[dict[str, Any]]] = [
    {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    {"color_scheme": "light", "viewport": {"width": 360, "height": 740}, "has_touch": True},
]
NAMES: Final = ["light", "dark", "phone"]


async def shop_of(memory: SQLMemory) -> str:
    """Fill the shop, and return the key of an administrator."""
    for number, at in enumerate(spread(80, days=25)):
        await memory.add(said("hello", at), f"visitor-{number % 60:02}")
    await chat_of(memory, "alice")
    await chat_of(memory, "alice", "other")
    _, key = await memory.api_keys.create("night shift", is_admin=True)
    return key


async def log_in(page: Page, url: str, key: str) -> None:
    await page.goto(f"{url}/admin")
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Log in").click()
    # It loads again by itself until the numbers are there.
    await expect(page.get_by_role("img", name="Messages a day")).to_be_visible()


async def looks_right(page: Page) -> None:
    """Require what holds for every page: axe finds nothing, and nothing stands out of it."""
    await check_accessibility(page)
    # A list cuts off what does not fit, instead of making the page wider.
    for part in ["html", *["main .list"] * await page.locator("main .list").count()]:
        width = await page.locator(part).first.evaluate("e => e.scrollWidth - e.clientWidth")
        assert width <= 0, f"{part} of {page.url} is {width} pixels too wide"


@pytest.mark.guarantee("G99")
@pytest.mark.parametrize("look", LOOKS, ids=NAMES)
async def test_every_page_is_usable_by_everybody(
    memory: SQLMemory, serve: Serve, open_page: OpenPage, console: Console, look: dict[str, Any]
) -> None:
    key = await shop_of(memory)
    await memory.add(Message.user(LINE * 20), HOSTILE[9], session_id=HOSTILE[8])
    url = await serve(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)])
    page = await open_page(**look)
    await page.goto(f"{url}/admin/users")
    await looks_right(page)
    await log_in(page, url, key)
    await looks_right(page)
    for table in await page.get_by_text("As a table").all():
        await table.click()
    await looks_right(page)
    long = {"user_id": HOSTILE[9], "session_id": HOSTILE[8]}
    alice = {"user_id": "alice", "session_id": "default"}
    for where, params in [
        ("users", {}),
        ("users", {"prefix": "nobody"}),
        ("user", {"user_id": "alice"}),
        ("session", alice),
        ("runs", alice),
        ("clear", alice),
        ("erase", {"user_id": "alice"}),
        ("clean-up", {}),
        ("clean-up", {"days": "20"}),
        ("user", {"user_id": HOSTILE[9]}),
        ("session", long),
        ("erase", long),
    ]:
        await page.goto(f"{url}/admin/{where}?{urlencode(params)}")
        for folded in await page.locator("main details").all():
            await folded.locator("summary").click()
        await looks_right(page)
    console.expect("404")
    await page.goto(f"{url}/admin/nothing")
    await looks_right(page)


@pytest.mark.guarantee("G99")
async def test_an_operator_finds_their_way_by_links_and_keyboard(
    memory: SQLMemory, serve: Serve, page: Page
) -> None:
    url = await serve(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)])
    key = await shop_of(memory)
    await page.goto(f"{url}/admin")
    await page.keyboard.type(key)  # the field has the focus
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("img", name="Messages a day")).to_be_visible()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"

    await page.get_by_role("link", name="Users", exact=True).click()
    await page.get_by_role("searchbox").fill("visitor-0")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("rowheader")).to_have_count(10)
    await page.get_by_role("searchbox").fill("")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("rowheader")).to_have_count(50)
    await page.get_by_role("link", name="Next page").click()
    await expect(page.get_by_role("rowheader")).to_have_count(11)
    await page.get_by_role("link", name="First page").click()

    await page.get_by_role("link", name="alice").click()
    titled = page.get_by_role("rowheader").filter(has_text="Where is my order 1017?")
    await expect(titled).to_have_count(2)
    await page.get_by_role("link", name="default").click()
    call = page.get_by_role("group").filter(has_text="look_up_order")
    await expect(page.get_by_text('{"order_id": 1017}')).to_be_hidden()
    await call.locator("summary").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text('{"order_id": 1017}')).to_be_visible()
    await page.get_by_role("link", name="Runs").click()
    await expect(page.get_by_text("ModelTimeoutError")).to_be_visible()
    await page.get_by_role("link", name="ask", exact=True).click()
    await expect(page.get_by_text("Where is my order 1017?")).to_be_visible()
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    await page.go_back()
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()


@pytest.mark.guarantee("G99")
async def test_clear_erase_and_clean_up_are_done_as_they_are_typed(
    memory: SQLMemory, serve: Serve, page: Page, console: Console, sqlite_url: str
) -> None:
    long_ago = FakeClock(datetime.now(UTC) - timedelta(days=100))
    async with SQLMemory.open(sqlite_url, clock=long_ago) as before:
        for user in ("gone", "gone-too"):
            await chat_of(before, user)
    key = await shop_of(memory)
    url = await serve(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)])
    await log_in(page, url, key)

    await page.goto(f"{url}/admin/session?user_id=alice&session_id=default")
    await page.get_by_role("link", name="Clear session…").click()
    console.expect("422")
    await confirm(page, "alice", "Clear session")
    await expect(page.get_by_role("alert")).to_have_text("That is not it: nothing was deleted.")
    await looks_right(page)
    assert await memory.size("alice") == 5
    await confirm(page, "default", "Clear session")
    await expect(page.get_by_role("status")).to_have_text(
        "Cleared: 5 messages and 2 runs were deleted."
    )
    assert await memory.size("alice") == 0

    await page.get_by_role("link", name="alice").click()
    await page.get_by_role("link", name="Erase user…").click()
    await confirm(page, "alice", "Erase user")
    await expect(page.get_by_role("status")).to_contain_text("2 sessions, 5 messages, 2 runs")
    await looks_right(page)
    await page.reload()
    await expect(page.get_by_role("status")).to_have_count(0)

    await page.get_by_role("link", name="Clean-up").click()
    await page.get_by_role("button", name="Preview").click()
    await expect(page.get_by_role("heading", name="2 users inactive for 90 days")).to_be_visible()
    await confirm(page, "2", "Delete users")
    await expect(page.get_by_role("status")).to_have_text("2 users deleted.")
    await expect(page.get_by_text("Nobody has been inactive")).to_be_visible()
    assert await memory.last_activity("gone") is None


async def confirm(page: Page, typed: str, button: str) -> None:
    await page.get_by_label(re.compile("To confirm")).fill(typed)
    await page.get_by_role("button", name=button).click()


@pytest.mark.guarantee("G96")
async def test_hostile_ids_and_contents_are_text_and_their_links_work(
    memory: SQLMemory, serve: Serve, page: Page
) -> None:
    for user in HOSTILE[:8]:
        await memory.add(Message.user(LINE + user), user, session_id=user)
    url = await serve(shop_agent(memory))
    for user in HOSTILE[:8]:
        await page.goto(f"{url}/admin/users")
        rows = page.get_by_role("rowheader").get_by_role("link")
        shown = await rows.all_text_contents()
        await rows.nth(shown.index(visible(user))).click()
        await page.get_by_role("rowheader").get_by_role("link").click()
        bubble = page.locator(".bubble")
        assert await bubble.text_content() == LINE + user
        assert "stolen" not in await page.title()
        await page.get_by_role("link", name="Clear session…").click()
        await confirm(page, await copied(page), "Clear session")
        await expect(page.get_by_role("status")).to_contain_text("Cleared: 1 message")
        await page.locator(".crumbs a").nth(1).click()
        await page.get_by_role("link", name="Erase user…").click()
        await confirm(page, await copied(page), "Erase user")
        await expect(page.get_by_role("status")).to_contain_text("Erased")
        assert await memory.last_activity(user) is None


async def copied(page: Page) -> str:
    """Return what the page says has to be typed, as it is copied from there."""
    text = await page.locator(".copy").text_content()
    assert text is not None
    return text


async def test_without_login_the_pages_say_so_and_the_chat_page_leads_there(
    memory: SQLMemory, serve: Serve, page: Page
) -> None:
    chat = await Chat.entered(page, await serve(shop_agent(memory)))
    await chat.page.get_by_role("link", name="Operator pages").click()
    await expect(page.get_by_text("no login: this machine only")).to_be_visible()
    await expect(page.get_by_role("img", name="Messages a day")).to_be_visible()
    await looks_right(page)
    await page.get_by_role("link", name="Chat page").click()
    await expect(page.locator("#user-name")).to_have_text("alice")


async def test_a_wrong_key_is_told_and_the_field_has_the_focus(
    memory: SQLMemory, serve: Serve, page: Page, console: Console
) -> None:
    url = await serve(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)])
    await page.goto(f"{url}/admin")
    console.expect("403")
    await page.get_by_label("API key").fill("agno_sql_wrong")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_contain_text("no valid key")
    await expect(page.get_by_label("API key")).to_be_focused()
    await looks_right(page)


@pytest.mark.guarantee("G95")
@pytest.mark.parametrize("is_open", [False, True], ids=["logged in", "without login"])
async def test_another_page_cannot_make_the_browser_post_a_form(
    memory: SQLMemory, serve: Serve, page: Page, console: Console, *, is_open: bool
) -> None:
    """Though it is a perfect copy of a form of this session."""
    key = await shop_of(memory)
    auth = [] if is_open else [ApiKeyAuth(memory.api_keys)]
    url = await serve(shop_agent(memory), auth=auth)
    if not is_open:
        await log_in(page, url, key)
    await page.goto(f"{url}/admin/erase?user_id=alice")
    form = await page.locator("main form").inner_html()
    evil = url.replace("127.0.0.1", "localhost") + "/evil"
    await page.route(
        evil,
        lambda route: route.fulfill(
            content_type="text/html",
            body="<!doctype html><title>evil</title><link rel=icon href=data:,>"
            f"<form method=post action='{url}/admin/erase?user_id=alice'>{form}</form>",
        ),
    )
    await page.goto(evil)
    await page.locator("#confirmation").fill("alice")
    await page.get_by_role("button", name="Erase user").click()
    if is_open:
        console.expect("403")
        await expect(page.get_by_text("sent by another page")).to_be_visible()
    else:  # the browser keeps the cookie of the session to itself
        await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert await memory.size("alice") == 5
