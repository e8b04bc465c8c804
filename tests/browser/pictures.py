"""Takes the pictures of the documents: ``python -m tests.browser.pictures``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import expect

from agno_sql.agent.agent import Agent
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from agno_sql.models.chat_model import ModelReply
from tests.agent.models import ScriptedModel, asks, call
from tests.browser.chat import Chat
from tests.server.admin.shop import chat_of, shop_agent
from tests.support.browser import chromium
from tests.support.clock import FakeClock
from tests.support.http import served
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from playwright.async_api import Browser

FOLDER: Final = CHECKOUT / "docs" / "images"
SIZE: Final = {"width": 1200, "height": 760}
DAYS: Final = 30
BEFORE: Final = (
    "Shoes in size 39",
    "Which tariff is cheaper?",
    "Return of order 4688",
    "My name is Alice",
)
ANSWER: Final = """Order **4711** left the warehouse this morning and should be with you **tomorrow before noon**.

1. Tonight the parcel reaches the depot in your town.
2. Tomorrow you get a message with a window of two hours.
3. If nobody is at home, the shop at the corner keeps it for a week.

Shall I send it somewhere else?"""


def look_up_order(order_id: int) -> str:
    """Tell where an order is."""
    return f'{{"order": {order_id}, "status": "on its way", "expected": "tomorrow"}}'


async def chat_page(browser: Browser, folder: Path, to: Path, **look: Any) -> None:
    """Take a picture of the chat page, in *look*, with a tool call and its answer."""
    url = f"sqlite:///{folder / to.stem}.db"
    clock = FakeClock(datetime.now(UTC) - len(BEFORE) * timedelta(hours=20))
    async with SQLMemory.open(url, clock=clock) as memory:
        for number, text in enumerate(reversed(BEFORE)):
            said = [Message.user(text), Message.assistant("Gladly.")]
            await memory.extend(said, "Alice", session_id=f"s{number}")
            clock.advance(timedelta(hours=20))
        model = ScriptedModel(
            "Wonderful. Thank you for telling me, Alice.",
            asks(call("look_up_order", order_id=4711)),
            ANSWER,
        )
        agent = Agent(name="Shop assistant", model=model, memory=memory, tools=[look_up_order])
        async with served(agent) as client, await browser.new_context(**look) as context:
            chat = await Chat.entered(
                await context.new_page(), f"{client.base_url}/#/new", user="Alice"
            )
            await chat.ask("My parcel from last week arrived")
            await expect(chat.answers).to_have_count(1)
            await chat.ask("And where is my order 4711?")
            await expect(chat.answers.last).to_contain_text("somewhere else")
            await expect(chat.notice).to_have_count(0)
            await chat.page.screenshot(path=to)
            await chat.page.close()


async def operators_page(browser: Browser, folder: Path, to: Path, **look: Any) -> None:
    """Take a picture of the operator's overview, in *look*, of a shop with regular customers."""
    url = f"sqlite:///{folder / to.stem}.db"
    clock = FakeClock(datetime.now(UTC) - timedelta(days=DAYS - 1))
    async with SQLMemory.open(url, clock=clock) as memory:
        for day in range(DAYS):
            for number in range(3 + day // 4 + day * 5 % 4):
                said = ModelReply("It is on its way.", usage=Usage(300 + 40 * number, 90))
                agent = shop_agent(memory, said)
                await agent.run("Where is my order?", f"customer-{day * 3 % 7 + number}")
            if day % 11 == DAYS % 11:
                await chat_of(memory, "alice", f"of day {day}")
            if day + 1 < DAYS:
                clock.advance(timedelta(days=1))
        async with served(shop_agent(memory)) as client, await browser.new_context(**look) as tabs:
            page = await tabs.new_page()
            await page.goto(f"{client.base_url}/admin")
            await expect(page.get_by_role("img", name="Messages a day")).to_be_visible()
            await page.screenshot(path=to)


async def main() -> None:
    """Take them all."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with chromium() as browser:
            for name, take in [("chat", chat_page), ("operator", operators_page)]:
                to = FOLDER / f"{name}.png"
                await take(browser, Path(folder), to, color_scheme="light", viewport=SIZE)
                sys.stdout.write(f"{to}: {to.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    asyncio.run(main())
