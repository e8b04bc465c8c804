"""An operator's browser, as far as HTTP tells: cookies, forms, and where they come from."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final

from agno_sql.server import ApiKeyAuth
from tests.support.http import DEADLINE_S, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx

    from agno_sql.agent.agent import Agent
    from agno_sql.memory.sql import SQLMemory

_CSRF: Final = re.compile('name="csrf" value="([0-9a-f]{64})"')


class Page(HTMLParser):
    """What a page holds: its text, its links, its forms' fields, and all of its elements."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self.status = response.status_code
        self.html = response.text
        self.text = ""
        self.links: list[str] = []
        self.elements: list[str] = []
        self.fields: dict[str, str] = {}
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        found = dict(attrs)
        link = found.get("href") or ""
        if tag == "a" and not link.startswith("#"):
            self.links.append(link)
        if tag == "input":
            self.fields[str(found["name"])] = found.get("value") or ""

    def handle_data(self, data: str) -> None:
        self.text += data


class Visitor:
    """Sees pages and posts their forms, from the origin that they are of."""

    def __init__(self, client: httpx.AsyncClient, base: str = "/admin") -> None:
        self.client = client
        self.base = base
        self.origin = {"origin": str(client.base_url).rstrip("/")}

    async def get(self, page: str, **params: Any) -> httpx.Response:
        return await self.client.get(f"{self.base}/{page}", params=params)

    async def see(self, page: str, **params: Any) -> Page:
        return Page(await self.get(page, **params))

    async def overview(self) -> Page:
        """Return the overview once its numbers are there, or can't be."""
        async with asyncio.timeout(DEADLINE_S):
            while "for the first time" in (shown := await self.see("")).text:
                pass  # each answer has waited for them
        return shown

    async def follow(self, response: httpx.Response) -> Page:
        """Return the page that a redirect leads to."""
        assert response.status_code == 303, response.text
        return Page(await self.client.get(response.headers["location"]))

    async def csrf(self, page: str = "clean-up", **params: Any) -> str:
        found = _CSRF.search((await self.get(page, **params)).text)
        assert found, "the page has no form"
        return found[1]

    async def post(
        self,
        page: str,
        fields: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        return await self.client.post(
            f"{self.base}/{page}",
            params=params,
            data=dict(fields),
            headers=self.origin if headers is None else headers,
        )

    async def submit(self, page: str, fields: dict[str, str], **params: Any) -> httpx.Response:
        """Fill in the form of a page and send it, as a browser does."""
        shown = await self.see(page, **params)
        return await self.post(page, shown.fields | fields, params=params)

    async def log_in(self, key: str, **params: Any) -> httpx.Response:
        return await self.submit("login", {"key": key}, **params)


@asynccontextmanager
async def visiting(agent: Agent, memory: SQLMemory) -> AsyncIterator[Visitor]:
    """Serve *agent* with API keys, and yield an operator who is logged in."""
    _, key = await memory.api_keys.create("night shift", is_admin=True)
    async with served(agent, auth=[ApiKeyAuth(memory.api_keys)]) as client:
        visitor = Visitor(client)
        assert (await visitor.log_in(key)).status_code == 303
        yield visitor
