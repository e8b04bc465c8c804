"""What is refused before it does harm: large and slow bodies, crowds, other hosts and pages."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from agno_sql.errors import InvalidOptionError, RunCancelledError
from agno_sql.runs import RunKey
from agno_sql.server import Limits, create_app
from agno_sql.server.ongoing import OngoingRuns
from tests.agent.models import ScriptedModel, agent_of
from tests.support.http import DEADLINE_S, served
from tests.support.runner import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx

    from agno_sql.memory.sql import SQLMemory

BODY = {"user_id": "alice", "message": "x"}
HEAD = "POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


class Raw:
    """A client that sends whatever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: str | bytes) -> None:
        self._writer.write(data.encode("latin-1") if isinstance(data, str) else data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Return the status and all that comes until the server closes the connection."""
        async with asyncio.timeout(DEADLINE_S):
            all_of_it = await self._reader.read()
        return int(all_of_it.split(b" ", 2)[1]), all_of_it

    async def is_closed(self) -> bool:
        return not await self._reader.read()


@asynccontextmanager
async def raw(client: httpx.AsyncClient) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def full_server(
    memory: SQLMemory,
) -> AsyncIterator[tuple[httpx.AsyncClient, Callable[[], Awaitable[None]]]]:
    """Serve one request at once, and that one is at work; yields what lets it go on to its end."""
    gate = Gate()
    agent = agent_of(ScriptedModel(gate.think, then="ok"), memory)
    async with served(agent, limits=Limits(concurrency=1)) as client:
        first = asyncio.create_task(client.post("/chat", json=BODY))

        async def go_on() -> None:
            gate.opened.set()
            assert (await first).status_code == 200

        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
        yield client, go_on
        await go_on()


class TestABodyThatIsTooLarge:
    """Is 413, and not read."""

    @pytest.mark.guarantee("G71")
    async def test_is_refused_by_what_its_length_says_before_any_of_it_comes(
        self, sqlite_memory: SQLMemory
    ) -> None:
        async with served(agent_of(ScriptedModel(), sqlite_memory)) as client, raw(client) as other:
            await other.send(f"{HEAD}Content-Length: 1048577\r\n\r\n")
            status, told = await other.answer()
        assert status == 413
        assert b'"code":"body_too_large"' in told
        assert b"connection: close" in told.lower()

    @pytest.mark.guarantee("G71")
    async def test_is_refused_when_it_turns_out_to_be(self, sqlite_memory: SQLMemory) -> None:
        limits = Limits(body_bytes=1000)
        async with (
            served(agent_of(ScriptedModel(), sqlite_memory), limits=limits) as client,
            raw(client) as other,
        ):
            await other.send(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n")
            await other.send("3e8\r\n" + "x" * 1000 + "\r\n")
            await other.send("1\r\ny\r\n")
            status, told = await other.answer()
        assert status == 413
        assert b'"code":"body_too_large"' in told

    @pytest.mark.parametrize("length", ["+5", "5\r\nContent-Length: 6", "9" * 30, "x", "-1"])
    async def test_or_lies_about_its_length_is_refused(
        self, sqlite_memory: SQLMemory, length: str
    ) -> None:
        async with served(agent_of(ScriptedModel(), sqlite_memory)) as client, raw(client) as other:
            await other.send(f"{HEAD}Content-Length: {length}\r\n\r\n{{}}   ")
            status, _ = await other.answer()
        assert status in (400, 413)

    async def test_of_just_the_limit_is_served(self, sqlite_memory: SQLMemory) -> None:
        size = len(json.dumps(BODY))
        agent = agent_of(ScriptedModel(then="ok"), sqlite_memory)
        async with served(agent, limits=Limits(body_bytes=size)) as client:
            headers = {"content-type": "application/json"}
            told = await client.post("/chat", content=json.dumps(BODY), headers=headers)
            assert told.status_code == 200
            told = await client.post("/chat", content=json.dumps(BODY) + " ", headers=headers)
            assert told.status_code == 413


@pytest.mark.guarantee("G71")
async def test_a_body_that_comes_too_slowly_is_given_up_on(sqlite_memory: SQLMemory) -> None:
    limits = Limits(body_timeout=timedelta(seconds=0.1))
    async with (
        served(agent_of(ScriptedModel(), sqlite_memory), limits=limits) as client,
        raw(client) as other,
    ):
        await other.send(f"{HEAD}Content-Length: 20\r\n\r\n{{")
        status, told = await other.answer()
    assert status == 408
    assert b'"code":"body_too_slow"' in told


async def test_a_client_that_goes_away_in_its_body_leaves_nothing(
    sqlite_memory: SQLMemory,
) -> None:
    """What has arrived of it would be a request by itself."""
    model = ScriptedModel()
    async with served(agent_of(model, sqlite_memory)) as client:
        async with raw(client) as other:
            await other.send(f"{HEAD}Content-Length: 900\r\n\r\n{json.dumps(BODY)}")
        assert (await client.get("/healthz")).status_code == 200
    assert model.shown == []


@pytest.mark.guarantee("G71")
async def test_a_client_that_does_not_read_its_answer_keeps_no_place(
    sqlite_memory: SQLMemory,
) -> None:
    agent = agent_of(ScriptedModel(then="x" * 20_000_000), sqlite_memory)
    limits = Limits(concurrency=1, send_timeout=timedelta(seconds=0.2))
    async with served(agent, limits=limits) as client, raw(client) as other:
        body = json.dumps(BODY)
        await other.send(f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}")
        async with asyncio.timeout(DEADLINE_S):
            while await sqlite_memory.size("alice") < 2:  # noqa: ASYNC110  (it sets no event)
                await asyncio.sleep(0)
            asked, told = {"user_id": "alice"}, 503
            while told == 503:
                told = (await client.get("/sessions", params=asked)).status_code
        assert told == 200


@pytest.mark.parametrize(
    "method, path, body",
    [("POST", "/x/healthz", "{}"), ("POST", "/healthz", "{}"), ("GET", "/healthz", "{}")],
)
async def test_only_a_plain_question_for_health_is_answered_beyond_the_limit(
    sqlite_memory: SQLMemory, method: str, path: str, body: str
) -> None:
    async with full_server(sqlite_memory) as (client, _):
        kind = {"content-type": "application/json"}
        told = await client.request(method, path, content=body, headers=kind)
        assert (told.status_code, told.json()["code"]) == (503, "overloaded")


@pytest.mark.guarantee("G71")
async def test_what_comes_beyond_the_limit_is_503_and_health_is_told(
    sqlite_memory: SQLMemory,
) -> None:
    async with full_server(sqlite_memory) as (client, go_on):
        told = await client.post("/chat", json=BODY)
        assert (told.status_code, told.json()["code"]) == (503, "overloaded")
        assert told.headers["retry-after"] == "1"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        await go_on()
        assert (await client.post("/chat", json=BODY)).status_code == 200


async def test_runs_whose_clients_are_gone_count_too(sqlite_memory: SQLMemory) -> None:
    gate = Gate()
    agent = agent_of(ScriptedModel(gate.think, then="ok"), sqlite_memory)
    async with served(agent, limits=Limits(concurrency=1)) as client:
        first = asyncio.create_task(client.post("/chat", json=BODY))
        async with asyncio.timeout(DEADLINE_S):
            await gate.entered.wait()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            told = await client.post("/chat", json=BODY | {"user_id": "bob"})
            while "too many requests" in told.text:  # until the server has seen the client go
                told = await client.post("/chat", json=BODY | {"user_id": "bob"})
        assert (told.status_code, told.json()["code"]) == (503, "overloaded")
        assert "too many runs" in told.text
        gate.opened.set()


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_what_a_page_can_send_without_asking_is_no_request(
    sqlite_memory: SQLMemory, content_type: str
) -> None:
    """A browser sends these types to any server; it asks first for application/json."""
    model = ScriptedModel()
    async with served(agent_of(model, sqlite_memory)) as client:
        told = await client.post(
            "/chat", content=json.dumps(BODY), headers={"content-type": content_type}
        )
    assert (told.status_code, told.json()["code"]) == (415, "unsupported_media_type")
    assert model.shown == []


class TestOtherPages:
    """May not call it from a browser unless they are named."""

    ASKING = {  # noqa: RUF012  (read only)
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }

    async def test_may_not_without_a_word(self, sqlite_memory: SQLMemory) -> None:
        async with served(agent_of(ScriptedModel(), sqlite_memory)) as client:
            told = await client.options("/chat", headers=self.ASKING)
        assert told.status_code == 405
        assert not [name for name in told.headers if name.startswith("access-control")]

    async def test_may_if_they_are_named(self, sqlite_memory: SQLMemory) -> None:
        agent = agent_of(ScriptedModel(), sqlite_memory)
        async with served(agent, cors_origins=["https://a.example"]) as client:
            told = await client.options("/chat", headers=self.ASKING)
            assert told.headers["access-control-allow-origin"] == "https://a.example"
            told = await client.options(
                "/chat", headers=self.ASKING | {"origin": "https://b.example"}
            )
            assert "access-control-allow-origin" not in told.headers


@pytest.mark.parametrize(
    "host, status",
    [
        ("localhost:8080", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8080", 421),
        ("localhost:8080@evil.example", 421),
        ("", 421),
    ],
)
async def test_only_requests_for_the_hosts_it_is_are_served(
    sqlite_memory: SQLMemory, host: str, status: int
) -> None:
    hosts = {"localhost", "127.0.0.1", "[::1]"}
    async with served(agent_of(ScriptedModel(), sqlite_memory), hosts=hosts) as client:
        told = await client.get("/healthz", headers={"host": host})
    assert told.status_code == status


async def test_every_answer_says_how_browsers_have_to_treat_it(sqlite_memory: SQLMemory) -> None:
    async with served(agent_of(ScriptedModel(), sqlite_memory)) as client:
        for path in ("/healthz", "/nothing", "/sessions"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["x-frame-options"] == "DENY"
            assert "server" not in headers or "uvicorn" in headers["server"]


@pytest.mark.parametrize(
    "head",
    [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX : y\r\n\r\n",
        "GET /healthz\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, x\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_400(sqlite_memory: SQLMemory, head: str) -> None:
    async with served(agent_of(ScriptedModel(), sqlite_memory)) as client, raw(client) as other:
        await other.send(head)
        status, _ = await other.answer()
        assert status in (400, 501)
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "bad", [{"body_bytes": 0}, {"concurrency": 0}, {"body_timeout": timedelta(0)}]
)
def test_limits_have_bounds(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidOptionError):
        Limits(**bad)  # type: ignore[arg-type]


async def test_a_run_that_is_cancelled_before_it_begins_is_forgotten(
    sqlite_memory: SQLMemory,
) -> None:
    runs = OngoingRuns(agent_of(ScriptedModel(then="ok"), sqlite_memory), at_most=1)
    key = RunKey("alice", "default", "r-1")
    run = runs.begin(key, "hi", streams=False)
    assert runs.cancel(key)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(RunCancelledError):
            await run.answer()
        assert (await runs.begin(key, "hi", streams=False).answer()).content == "ok"


def test_an_agent_without_a_database_cannot_be_served() -> None:
    with pytest.raises(InvalidOptionError, match="InMemory"):
        create_app(agent_of(ScriptedModel()))
