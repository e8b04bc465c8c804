"""The chat page as its users see it, and a model that pauses in the midst of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from playwright.async_api import Page, expect

from tests.agent.models import ScriptedModel, pieces
from tests.support.runner import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from playwright.async_api import Locator

    from agno_sql.message import Message
    from agno_sql.models.chat_model import ModelReply, ToolSpec
    from tests.agent.models import Step

expect.set_options(timeout=15_000)

PAUSE = "…"


class PausingModel(ScriptedModel):
    """Streams its replies, and stays at the gate before each word that is a PAUSE."""

    def __init__(self, *steps: Step) -> None:
        super().__init__(*steps)
        self.gate = Gate()

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        reply = await self.reply(messages, tools)
        for piece in pieces(reply.content):
            if piece.strip() == PAUSE:
                await self.gate.wait()
            yield piece
        yield reply


@dataclass(frozen=True)
class Chat:
    """The page in one browser's tab."""

    page: Page

    @classmethod
    async def entered(cls, page: Page, url: str, user: str = "alice") -> Chat:
        """Open the page and say who is there."""
        await page.goto(url)
        chat = cls(page)
        await chat.enter(user)
        return chat

    async def enter(self, user: str) -> None:
        await self.page.get_by_label("Name").fill(user)
        await self.button("Continue").click()
        await expect(self.page.locator("#identity")).to_be_hidden()
        await expect(self.page.locator("#user-name")).to_have_text(user)

    async def ask(self, text: str) -> None:
        await self.at_rest()  # until then the page takes no other question
        await self.message.fill(text)
        await self.message.press("Enter")

    async def at_rest(self) -> None:
        """Wait until the run has ended: an answer is seen before it is stored."""
        await expect(self.button("Stop the answer")).to_be_hidden()

    async def said(self) -> list[str]:
        """Return what user and assistant said, as it is on the screen."""
        return [text.strip() for text in await self.everything.all_inner_texts()]

    @property
    def message(self) -> Locator:
        return self.page.get_by_label("Message", exact=True)

    @property
    def everything(self) -> Locator:
        return self.page.locator(".bubble, .said.answer")

    @property
    def answers(self) -> Locator:
        return self.page.locator(".said.answer")

    @property
    def tools(self) -> Locator:
        return self.page.locator("details.tool")

    @property
    def notice(self) -> Locator:
        return self.page.locator(".notice")

    @property
    def sessions(self) -> Locator:
        return self.page.locator("#sessions button")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)
