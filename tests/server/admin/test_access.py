"""Who may see the operator's pages, and whose forms are obeyed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from agno_sql.memory.api_keys import SESSION_LASTS
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.server import ApiKeyAuth, JWTAuth
from tests.server.admin.shop import shop_agent
from tests.server.admin.visitor import Page, Visitor, visiting
from tests.support.http import served
from tests.support.runner import rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.clock import FakeClock

PAGES: Final[list[tuple[str, dict[str, str]]]] = [
    ("", {}),
    ("users", {}),
    ("user", {"user_id": "alice"}),
    ("session", {"user_id": "alice", "session_id": "default"}),
    ("runs", {"user_id": "alice", "session_id": "default"}),
    ("clear", {"user_id": "alice", "session_id": "default"}),
    ("erase", {"user_id": "alice"}),
    ("clean-up", {"days": "1"}),
]
DEEDS: Final[list[tuple[str, dict[str, str], dict[str, str]]]] = [
    ("clear", {"user_id": "alice", "session_id": "default"}, {"confirmation": "default"}),
    ("erase", {"user_id": "alice"}, {"confirmation": "alice"}),
    ("logout", {}, {}),
]


@pytest_asyncio.fixture
async def memory(database_url: str, clock: FakeClock) -> AsyncIterator[SQLMemory]:
    """One user's message, and a clock that the test moves."""
    async with SQLMemory.open(database_url, clock=clock) as opened:
        await opened.add(Message.user("hi"), "alice")
        yield opened


async def is_logged_in(visitor: Visitor) -> bool:
    response = await visitor.get("users")
    assert response.status_code in (200, 303)
    if response.status_code == 303:
        assert response.headers["location"].startswith("/admin/login")
        assert "alice" not in response.text
    return response.status_code == 200


class TestLoggingIn:
    """Takes a valid key of an administrator."""

    @pytest.mark.guarantee("G94")
    async def test_shows_the_pages(self, memory: SQLMemory) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            for page, params in PAGES:
                shown = await visitor.see(page, **params)
                assert shown.status == 200, page
                assert "night shift" in shown.text
            assert not (await visitor.client.get("/users")).is_success, "a cookie opens no API"

    @pytest.mark.guarantee("G94")
    async def test_without_it_no_page_shows_and_no_form_does_anything(
        self, memory: SQLMemory
    ) -> None:
        auth = [ApiKeyAuth(memory.api_keys)]
        async with served(shop_agent(memory), auth=auth) as client:
            visitor = Visitor(client)
            for page, params in [*PAGES, ("nothing/here", {})]:
                response = await visitor.get(page, **params)
                assert response.status_code == 303
                assert response.headers["location"].startswith("/admin/login?next=")
                assert response.text == ""
            csrf = await visitor.csrf("login")
            for page, params, fields in DEEDS:
                response = await visitor.post(page, fields | {"csrf": csrf}, params=params)
                assert response.headers["location"] == "/admin/login"
        assert await memory.size("alice") == 1

    @pytest.mark.guarantee("G94")
    async def test_with_any_other_key_is_refused(
        self, memory: SQLMemory, database_url: str
    ) -> None:
        _, plain = await memory.api_keys.create("back end")
        revoked, was_admin = await memory.api_keys.create("gone", is_admin=True)
        await memory.api_keys.revoke(revoked.id)
        _, admin = await memory.api_keys.create("night shift", is_admin=True)
        auth = [ApiKeyAuth(memory.api_keys)]
        async with served(shop_agent(memory), auth=auth) as client:
            visitor = Visitor(client)
            for key in (plain, was_admin, admin[:-1], admin + "x", "", "' OR 1=1 --", "é", "\0"):
                response = await visitor.log_in(key)
                assert response.status_code == 403
                assert "no valid key of an administrator" in response.text
                assert not await is_logged_in(visitor)
            assert rows(database_url, "admin_sessions") == []
            assert (await visitor.log_in(f" {admin}\n")).status_code == 303, "as it was pasted"
            assert await is_logged_in(visitor)
        (stored,) = rows(database_url, "admin_sessions")
        assert client.cookies["agno_sql_admin"] not in str(stored)

    async def test_leads_back_to_the_page_that_was_asked_for(self, memory: SQLMemory) -> None:
        _, key = await memory.api_keys.create("night shift", is_admin=True)
        user = "a/b?c#d%2F é"
        await memory.add(Message.user("hi"), user)
        async with served(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)]) as client:
            visitor = Visitor(client)
            asked = await visitor.get("user", user_id=user)
            shown = Page(await client.get(asked.headers["location"]))
            fields = shown.fields | {"key": key}
            response = await client.post(
                asked.headers["location"], data=fields, headers=visitor.origin
            )
            assert user in (await visitor.follow(response)).text

    @pytest.mark.parametrize(
        "where",
        [
            "//evil.example",
            "https://evil.example",
            "\\\\evil",
            "/\\evil",
            "/\r\nx: y",
            "@e",
            "/../users",
            "/%2e%2e/users",
            "/users#x",
        ],
    )
    async def test_leads_nowhere_else(self, memory: SQLMemory, where: str) -> None:
        _, key = await memory.api_keys.create("night shift", is_admin=True)
        async with served(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)]) as client:
            response = await Visitor(client).log_in(key, next=where)
        assert response.headers["location"] == "/admin/"
        assert "x" not in response.headers


class TestASession:
    """Ends when it has to."""

    @pytest.mark.guarantee("G94")
    async def test_ends_with_its_key(self, memory: SQLMemory) -> None:
        key, text = await memory.api_keys.create("night shift", is_admin=True)
        async with served(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)]) as client:
            visitor = Visitor(client)
            await visitor.log_in(text)
            assert await is_logged_in(visitor)
            await memory.api_keys.revoke(key.id)
            assert not await is_logged_in(visitor)
            assert (await visitor.log_in(text)).status_code == 403

    @pytest.mark.guarantee("G94")
    async def test_ends_after_eight_hours(
        self, memory: SQLMemory, clock: FakeClock, database_url: str
    ) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            clock.advance(SESSION_LASTS - timedelta(seconds=1))
            assert await is_logged_in(visitor)
            csrf = await visitor.csrf()
            clock.advance(timedelta(seconds=1))
            assert not await is_logged_in(visitor)
            response = await visitor.post(
                "erase", {"csrf": csrf, "confirmation": "alice"}, params={"user_id": "alice"}
            )
            assert response.headers["location"] == "/admin/login"
            _, key = await memory.api_keys.create("day shift", is_admin=True)
            await visitor.log_in(key)
        assert await memory.size("alice") == 1
        assert len(rows(database_url, "admin_sessions")) == 1, "the expired one is forgotten"

    @pytest.mark.guarantee("G94")
    async def test_ends_by_logging_out_for_who_has_kept_its_cookie_too(
        self, memory: SQLMemory
    ) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            kept = visitor.client.cookies["agno_sql_admin"]
            response = await visitor.submit("logout", {"csrf": await visitor.csrf()})
            assert "Log in" in (await visitor.follow(response)).text
            visitor.client.cookies.clear()
            visitor.client.cookies.set("agno_sql_admin", kept, path="/admin")
            assert not await is_logged_in(visitor)

    async def test_is_none_that_somebody_has_put_into_the_browser_before(
        self, memory: SQLMemory
    ) -> None:
        _, key = await memory.api_keys.create("night shift", is_admin=True)
        async with served(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)]) as client:
            visitor = Visitor(client)
            await visitor.get("login")
            before = client.cookies["agno_sql_admin"]
            await visitor.log_in(key)
            assert client.cookies["agno_sql_admin"] != before
            client.cookies.clear()
            client.cookies.set("agno_sql_admin", before, path="/admin")
            assert not await is_logged_in(visitor)

    @pytest.mark.guarantee("G95")
    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_is_kept_where_only_this_server_sees_it(
        self, memory: SQLMemory, scheme: str
    ) -> None:
        _, key = await memory.api_keys.create("night shift", is_admin=True)
        async with served(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)]) as client:
            visitor = Visitor(client)
            csrf = await visitor.csrf("login")
            # As behind a proxy that ends TLS.
            headers = {"origin": f"{scheme}://chat.example", "host": "chat.example"}
            response = await visitor.post("login", {"csrf": csrf, "key": key}, headers=headers)
        cookie = response.headers["set-cookie"].lower()
        assert cookie.startswith("agno_sql_admin=")
        told = {part.strip() for part in cookie.split(";")[1:]}
        expected = {"httponly", "samesite=strict", "path=/admin", "max-age=28800"}
        assert told == expected | ({"secure"} if scheme == "https" else set())


class TestAForm:
    """Is obeyed if it is ours, and of this session."""

    @pytest.mark.guarantee("G95")
    async def test_without_the_token_of_the_session_does_nothing(self, memory: SQLMemory) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            other = Visitor(visitor.client)
            mine = await visitor.csrf()
            _, key = await memory.api_keys.create("other", is_admin=True)
            async with served(
                shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)]
            ) as their_client:
                other = Visitor(their_client)
                before_login = await other.csrf("login")
                await other.log_in(key)
                others = await other.csrf()
            assert len({mine, others, before_login}) == 3
            wrong: list[dict[str, str]] = [
                {},
                {"csrf": ""},
                {"csrf": others},
                {"csrf": before_login},
                {"csrf": mine[:-1]},
                {"csrf": mine.upper()},
                {"csrf": "é"},
            ]
            for page, params, fields in DEEDS:
                for one in wrong:
                    response = await visitor.post(page, fields | one, params=params)
                    assert (response.status_code, await memory.size("alice")) == (403, 1), one
            assert await is_logged_in(visitor)

    @pytest.mark.guarantee("G95")
    async def test_that_another_page_has_sent_does_nothing(self, memory: SQLMemory) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            own = visitor.origin["origin"]
            csrf, port = await visitor.csrf(), int(own.rpartition(":")[2])
            elsewhere: list[dict[str, str]] = [
                {},
                {"origin": "null"},
                {"origin": ""},
                {"origin": "https://evil.example"},
                {"origin": f"http://127.0.0.1:{port + 1}"},
                {"origin": "http://127.0.0.1"},
                {"origin": f"http://127.0.0.1:{port}.evil.example"},
                {"origin": f"http://127.0.0.1.evil.example:{port}"},
                {"origin": "http://[::1"},
                {"origin": f"file://127.0.0.1:{port}"},
                {"origin": own, "sec-fetch-site": "cross-site"},
                {"origin": own, "sec-fetch-site": "same-site"},
                {"origin": own, "sec-fetch-site": "none"},
            ]
            for page, params, fields in DEEDS:
                for headers in elsewhere:
                    response = await visitor.post(
                        page, fields | {"csrf": csrf}, headers=headers, params=params
                    )
                    assert response.status_code == 403, headers
                    assert await memory.size("alice") == 1
            assert await is_logged_in(visitor)
            headers = {"origin": own, "sec-fetch-site": "same-origin"}
            response = await visitor.post("logout", {"csrf": csrf}, headers=headers)
            assert response.status_code == 303

    @pytest.mark.guarantee("G95")
    async def test_that_a_head_does_without_does_nothing(self, memory: SQLMemory) -> None:
        """Another page of the same site can send one, and the browser adds the cookie."""
        async with visiting(shop_agent(memory), memory) as visitor:
            for page, params, _ in DEEDS:
                response = await visitor.client.head(f"/admin/{page}", params=params)
                assert response.status_code in (200, 303)
                assert "set-cookie" not in response.headers
            assert await is_logged_in(visitor)
        assert await memory.size("alice") == 1

    async def test_that_is_none_is_malformed(self, memory: SQLMemory) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            headers = visitor.origin | {"content-type": "application/x-www-form-urlencoded"}
            for body in (b"\xff", b"a=%ff", b"&".join(b"a%d=1" % n for n in range(30))):
                response = await visitor.client.post(
                    "/admin/erase?user_id=alice", content=body, headers=headers
                )
                assert response.status_code == 400, body

    async def test_goes_to_the_pages_alone_and_json_to_the_api(self, memory: SQLMemory) -> None:
        async with visiting(shop_agent(memory), memory) as visitor:
            response = await visitor.client.post("/chat", data={"user_id": "alice"})
            assert response.status_code == 415
            response = await visitor.client.post("/admin/login", json={"csrf": "x"})
            assert response.status_code == 415


class TestWithoutAuthentication:
    """Everybody may do everything, but no page of another origin can make them."""

    @pytest.mark.guarantee("G95")
    async def test_the_pages_are_open_and_forms_are_still_checked(self, memory: SQLMemory) -> None:
        async with served(shop_agent(memory)) as client:
            visitor = Visitor(client)
            shown = await visitor.see("erase", user_id="alice")
            assert "no login: this machine only" in shown.text
            assert "Log out" not in shown.text
            for page in ("login", "logout"):
                assert (await visitor.get(page)).headers["location"] == "/admin/"
            response = await visitor.post("logout", {"csrf": shown.fields["csrf"]})
            assert response.headers["location"] == "/admin/login", "which leads on to the pages"
            shown = await visitor.see("erase", user_id="alice")
            fields = {"confirmation": "alice", "csrf": "0" * 64}
            assert (
                await visitor.post("erase", fields, params={"user_id": "alice"})
            ).status_code == 403
            fields["csrf"] = shown.fields["csrf"]
            headers = {"origin": "http://localhost:3000"}
            response = await visitor.post(
                "erase", fields, headers=headers, params={"user_id": "alice"}
            )
            assert response.status_code == 403
            assert await memory.size("alice") == 1
            assert (
                await visitor.post("erase", fields, params={"user_id": "alice"})
            ).status_code == 303
        assert await memory.size("alice") == 0


async def test_with_tokens_of_users_alone_there_are_no_pages(sqlite_memory: SQLMemory) -> None:
    auth = [JWTAuth.of_secret("x" * 32, issuer="i", audience="a")]
    async with served(shop_agent(sqlite_memory), auth=auth) as client:
        for path in ("/admin", "/admin/", "/admin/login"):
            assert (await client.get(path)).status_code == 404


@pytest.mark.guarantee("G95")
async def test_every_answer_forbids_scripts_frames_and_caches(memory: SQLMemory) -> None:
    async with visiting(shop_agent(memory), memory) as visitor:
        asked: list[Any] = [visitor.get(page, **params) for page, params in PAGES]
        asked += [
            visitor.get("nothing"),
            visitor.get("user", user_id="nobody"),
            visitor.get("users", cursor="x"),
            visitor.post("erase", {}, params={"user_id": "alice"}),
            visitor.client.put("/admin/erase"),
            visitor.submit("logout", {"csrf": await visitor.csrf()}),
            visitor.get("login"),
        ]
        for one in asked:
            response = await one
            told = response.headers
            assert told["content-security-policy"].split("; ") == [
                "default-src 'none'",
                "style-src 'self'",
                "img-src 'self'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
                "form-action 'self'",
            ], response.url
            assert told["referrer-policy"] == "same-origin"
            assert told["x-content-type-options"] == "nosniff"
            assert told["cache-control"] == "no-store"


async def test_the_address_without_a_slash_leads_to_the_pages(memory: SQLMemory) -> None:
    async with served(shop_agent(memory)) as client:
        response = await client.get("/admin", follow_redirects=True)
        assert response.url.path == "/admin/"
        assert "/admin" not in (await client.get("/openapi.json")).text
