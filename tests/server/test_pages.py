"""The chat page's files over HTTP: what they say of themselves, and what they may load."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from agno_sql.agent.agent import Agent
from agno_sql.server import JWTAuth
from agno_sql.server.pages.files import FOLDER
from tests.agent.models import ScriptedModel, agent_of
from tests.server.test_auth import CHECKED, SECRET
from tests.support.http import served

if TYPE_CHECKING:
    from agno_sql.memory.sql import SQLMemory

MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = [path.relative_to(FOLDER) for path in sorted((FOLDER / "static").rglob("*.*"))]


@pytest.mark.guarantee("G88")
async def test_the_page_and_its_files_may_load_only_what_this_server_has(
    sqlite_memory: SQLMemory,
) -> None:
    async with served(agent_of(ScriptedModel(), sqlite_memory)) as client:
        for path in ["/", *(f"/{file.as_posix()}" for file in FILES)]:
            told = await client.get(path)
            assert told.status_code == 200
            policy = dict(
                part.split(" ", 1) for part in told.headers["content-security-policy"].split("; ")
            )
            assert policy["default-src"] == "'none'"
            assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect")} == {"'self'"}
            assert (
                policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
            )
            assert policy["require-trusted-types-for"] == "'script'"
            assert told.headers["x-content-type-options"] == "nosniff"
            assert told.headers["referrer-policy"] == "no-referrer"
            for target in re.findall(r"https?://[^\s\"'`)/]+", told.text):
                assert target == "http://www.w3.org", f"{path} names {target}"


async def test_a_browser_that_has_a_file_is_told_that_it_is_the_same(
    sqlite_memory: SQLMemory,
) -> None:
    async with served(agent_of(ScriptedModel(), sqlite_memory)) as client:
        for path in ["/", *(f"/{file.as_posix()}" for file in FILES)]:
            told = await client.get(path)
            suffix = path.rpartition("/static/")[2].rpartition(".")[1:]
            media_type = MEDIA_TYPES.get("".join(suffix), "text/html")
            assert told.headers["content-type"].partition(";")[0] == media_type
            assert told.headers["cache-control"] == "no-cache"
            etag = told.headers["etag"]
            for known, status in [(etag, 304), (f'"x", W/{etag}', 304), ('"x"', 200), ("", 200)]:
                again = await client.get(path, headers={"if-none-match": known})
                assert (again.status_code, bool(again.content)) == (status, status == 200)
            head = await client.head(path)
            assert (head.status_code, head.headers["etag"], head.content) == (200, etag, b"")


async def test_nothing_but_the_files_is_there(sqlite_memory: SQLMemory) -> None:
    async with served(agent_of(ScriptedModel(), sqlite_memory)) as client:
        for path in (
            "/static/",
            "/static/none.js",
            "/static/../chat.html",
            "/static/..%2fchat.html",
            "/static/%2e%2e/files.py",
            "/docs",
            "/redoc",
        ):
            told = await client.get(path)
            assert (told.status_code, told.json()["code"]) == (404, "not_found")
        assert (await client.post("/", json={})).status_code == 405
        assert (await client.get("/openapi.json")).status_code == 200


async def test_the_page_asks_for_a_token_or_else_leads_to_the_operators_pages(
    sqlite_memory: SQLMemory,
) -> None:
    auth = [JWTAuth.of_secret(SECRET, **CHECKED)]
    for more, told, shows in [({}, "none", ""), ({"auth": auth}, "token", "hidden")]:
        async with served(agent_of(ScriptedModel(), sqlite_memory), **more) as client:
            page = (await client.get("/")).text
            assert f'data-auth="{told}"' in page
            assert f'<a class="operator" href="admin/" {shows}>' in page


async def test_an_agents_name_is_text_on_the_page(sqlite_memory: SQLMemory) -> None:
    name = """<script>"'&$auth"""
    agent = Agent(name=name, model=ScriptedModel(), memory=sqlite_memory)
    async with served(agent) as client:
        page = (await client.get("/")).text
    assert name not in page
    assert "<title>&lt;script&gt;&quot;&#x27;&amp;$auth</title>" in page
