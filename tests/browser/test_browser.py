"""The browser itself, and that it tells what is wrong with a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tests.support.browser import Console, check_accessibility
from tests.support.http import served_app

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page
    from starlette.requests import Request

GOOD = "<!doctype html><html lang=en><title>Good</title><main><h1>Good</h1></main></html>"
WRONG = {
    "warning": "<script>console.warn('careful')</script>",
    "nothing here": "<script>throw new Error('nothing here')</script>",
    "404": "<script>fetch('/missing')</script>",
    "another host": "<img src='http://192.0.2.1/x.png' alt=''>",
    "Content Security Policy": "<script>eval('1')</script>",
    "rejected": "<script>Promise.reject(new Error('rejected'))</script>",
}


def shows(html: str) -> Starlette:
    """Return an application whose one page is *html*."""

    async def show(_: Request) -> Response:
        policy = "img-src 'self'; script-src 'unsafe-inline'"
        return HTMLResponse(html, headers={"content-security-policy": policy})

    async def missing(_: Request) -> Response:
        return JSONResponse({}, status_code=404)

    async def no_content(_: Request) -> Response:
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/", show),
            Route("/missing", missing),
            Route("/favicon.ico", no_content),
        ]
    )


async def test_a_page_without_faults_passes(page: Page) -> None:
    async with served_app(shows(GOOD)) as client:
        await page.goto(str(client.base_url))
        assert await page.title() == "Good"
        await check_accessibility(page)


@pytest.mark.parametrize("told", WRONG)
async def test_whatever_goes_wrong_in_a_page_is_told(browser: Browser, told: str) -> None:
    console = Console()
    async with (
        served_app(shows(GOOD + WRONG[told])) as client,
        await browser.new_context() as context,
    ):
        console.watch(context)
        page = await context.new_page()
        await page.goto(str(client.base_url), wait_until="networkidle")
    with pytest.raises(AssertionError, match=told):
        console.check()
    console.expect(".")
    console.check()


async def test_what_is_expected_has_to_come() -> None:
    console = Console()
    console.expect("never told")
    with pytest.raises(AssertionError, match="never told"):
        console.check()


async def test_what_axe_finds_is_told(page: Page) -> None:
    async with served_app(shows(GOOD + "<img src='/favicon.ico'>")) as client:
        await page.goto(str(client.base_url))
        with pytest.raises(AssertionError, match="image-alt"):
            await check_accessibility(page)
