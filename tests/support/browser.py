"""A real Chromium for the tests, and what they hold every page to."""

from __future__ import annotations

import re
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]  # it has none
from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, BrowserContext, Page

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS: Final = (
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_OWN_HOSTS: Final = frozenset({"127.0.0.1", "localhost"})


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the Chromium of this machine; it is gone at the end."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    assert path, "the browser tests need Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


class Console:
    """All that went wrong in the pages of a test: nothing may, but for what it says to expect.

    That is what the console shows as a warning or an error (also what a Content-Security-Policy
    refused and a request that failed), an uncaught exception, and a request to another host.
    """

    def __init__(self) -> None:
        self._told: list[str] = []
        self._expected: list[re.Pattern[str]] = []

    def watch(self, context: BrowserContext) -> None:
        """Listen to all pages of *context*."""
        context.on("console", lambda said: self._hear(said.type, f"{said.text} {said.location}"))
        context.on("weberror", lambda error: self._told.append(f"uncaught: {error.error}"))
        context.on("requestfailed", lambda one: self._told.append(f"{one.failure}: {one.url}"))
        context.on("request", lambda one: self._check_host(one.url))

    def expect(self, pattern: str) -> None:
        """Say that *pattern* will be told, at least once."""
        self._expected.append(re.compile(pattern))

    def check(self) -> None:
        """Fail if something was told that is not expected, or something expected was not told."""
        surprises = [one for one in self._told if not any(p.search(one) for p in self._expected)]
        assert not surprises, "in the browser:\n" + "\n".join(surprises)
        missing = [p.pattern for p in self._expected if not any(map(p.search, self._told))]
        assert not missing, f"expected in the browser, and not there: {missing}"

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("warning", "error", "assert"):
            self._told.append(f"{kind}: {text}")

    def _check_host(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in _OWN_HOSTS:
            self._told.append(f"a request to another host: {url}")


async def check_accessibility(page: Page) -> None:
    """Fail if axe finds a violation in what *page* shows."""
    found = (await Axe().run(page)).response["violations"]
    assert not found, "\n".join(_told(violation) for violation in found)


def _told(violation: dict[str, Any]) -> str:
    nodes = [f"    {node['html']}\n      {node['failureSummary']}" for node in violation["nodes"]]
    return "\n".join([f"{violation['id']}: {violation['help']}", *nodes])
