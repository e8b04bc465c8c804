"""The chat page by keyboard, for screen readers, in light and dark, on desktop and phone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import expect

from agno_sql.errors import ModelUnavailableError
from agno_sql.message import Message
from tests.agent.models import ScriptedModel, agent_of, asks, call
from tests.browser.chat import Chat, PausingModel
from tests.support.browser import check_accessibility

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

    from agno_sql.memory.sql import SQLMemory
    from tests.browser.conftest import OpenPage, Serve

PHONE = {"width": 390, "height": 844}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": PHONE, "is_mobile": True, "has_touch": True},
    "dark phone": {"color_scheme": "dark", "viewport": PHONE},
}
ANSWER = "**Good**, see [this](https://maps.example).\n\n- one `a`\n\n```python\npass\n```"


def look_up(order: int) -> str:
    return f"order {order} is on its way"


@pytest.mark.guarantee("G89")
@pytest.mark.parametrize("look", LOOKS)
async def test_axe_finds_nothing_in_any_state_of_the_page(
    serve: Serve, open_page: OpenPage, memory: SQLMemory, look: str
) -> None:
    page = await open_page(**LOOKS[look], reduced_motion="reduce")
    await memory.extend(
        [Message.user("x"), Message.system("be kind"), Message.user("y"), Message.assistant("z")],
        "alice",
        session_id="old",
    )
    calls = asks(call("look_up", order=7))
    model = PausingModel(calls, ANSWER, "half … an answer", ModelUnavailableError("gone"))
    await page.goto(await serve(agent_of(model, memory, tools=[look_up])))
    await expect(page.get_by_role("dialog")).to_be_visible()
    await check_accessibility(page)
    chat = Chat(page)
    await chat.enter("alice")
    await expect(chat.everything).to_have_count(3)
    await check_accessibility(page)
    if "phone" in look:
        await chat.button("Conversations").click()
        await check_accessibility(page)
    await chat.button("New conversation").click()
    await check_accessibility(page)
    await chat.ask("Where is 7?")
    await expect(chat.answers).to_contain_text("Good")
    await chat.tools.locator("summary").click()
    await chat.ask("go on")
    await expect(chat.answers.last).to_have_text("half")
    await check_accessibility(page)
    await page.keyboard.press("Escape")
    await expect(chat.notice).to_contain_text("Stopped")
    await chat.ask("and now?")
    await expect(chat.button("Try again")).to_be_visible()
    await check_accessibility(page)
    await chat.button("Clear").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await check_accessibility(page)


async def tab_to(page: Page, wanted: Locator, *, key: str = "Tab") -> None:
    """Press *key* until *wanted* has the focus, which is to be seen wherever it comes."""
    for _ in range(30):
        await page.keyboard.press(key)
        outline = "getComputedStyle(document.activeElement.closest('.box') ?? document.activeElement).outlineStyle"
        assert await page.evaluate(outline) != "none"
        if await wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError("the focus never came there")


@pytest.mark.guarantee("G89")
async def test_everything_can_be_done_by_keyboard(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    model = ScriptedModel(asks(call("look_up", order=7)), "It comes.", "Good bye.")
    await memory.add(Message.user("an old talk"), "alice", session_id="old")
    await page.goto(await serve(agent_of(model, memory, tools=[look_up])))
    keys, chat = page.keyboard, Chat(page)
    await expect(page.get_by_label("Name")).to_be_focused()
    await keys.press("Escape")  # whoever has no name can't go on
    await keys.type("alice")
    await keys.press("Enter")
    await expect(chat.everything).to_have_text(["an old talk"])

    await tab_to(page, page.get_by_role("link", name="Skip to the message box"))
    await keys.press("Enter")
    await expect(chat.message).to_be_focused()
    await tab_to(page, chat.button("New conversation"), key="Shift+Tab")
    await keys.press("Enter")
    await expect(chat.message).to_be_focused()
    await keys.type("Where")
    await keys.press("Shift+Enter")
    await keys.type("is 7?")
    await keys.press("Enter")
    await expect(chat.everything).to_have_text(["Where\nis 7?", "It comes."])
    await chat.at_rest()
    await expect(chat.message).to_be_focused()
    await tab_to(page, chat.tools.locator("summary"), key="Shift+Tab")
    await keys.press("Enter")
    await expect(page.get_by_role("group", name="Result")).to_be_visible()

    await tab_to(page, chat.button("Clear"), key="Shift+Tab")
    await keys.press("Space")
    await expect(chat.button("Keep it")).to_be_focused()
    await keys.press("Escape")
    await expect(chat.button("Clear")).to_be_focused()
    await tab_to(page, chat.sessions.last, key="Shift+Tab")
    await keys.press("Enter")
    await expect(chat.everything).to_have_text(["an old talk"])
    await expect(chat.message).to_be_focused()
    await tab_to(page, chat.button("Switch user"), key="Shift+Tab")
    await keys.press("Enter")
    await keys.press("Escape")
    await expect(page.locator("#user-name")).to_have_text("alice")


async def test_the_conversations_are_a_drawer_on_a_phone(
    serve: Serve, open_page: OpenPage, memory: SQLMemory
) -> None:
    await memory.add(Message.user("first"), "alice", session_id="first")
    await memory.add(Message.user("second"), "alice", session_id="second")
    page = await open_page(**LOOKS["phone"])
    chat = await Chat.entered(page, await serve(agent_of(ScriptedModel(), memory)))
    await expect(chat.everything).to_have_text(["second"])
    await expect(chat.sessions.first).to_be_hidden()
    await chat.button("Conversations").click()
    await expect(chat.button("Close the conversations")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(chat.sessions.first).to_be_hidden()
    await expect(chat.button("Conversations")).to_be_focused()
    await chat.button("Conversations").click()
    await chat.sessions.last.click()
    await expect(chat.sessions.first).to_be_hidden()
    await expect(chat.everything).to_have_text(["first"])
