"""Server processes: told to stop, killed, and several on one database."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import ToolCall
from agno_sql.server import create_app
from agno_sql.testing import Reply, ScriptedOpenAI
from tests.agent.models import ScriptedModel, agent_of, contents
from tests.support.http import DEADLINE_S, served_app, server_process, sse_events
from tests.support.runner import Gate, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agno_sql.runs import RunRecord
    from tests.support.http import ServerProcess

BODY = {"user_id": "alice", "message": "x", "run_id": "r-1"}


@contextmanager
def shop(
    url: str, model: ScriptedOpenAI, *options: str, lease_s: float = 1
) -> Iterator[ServerProcess]:
    """Start a server of the tests' shop."""
    env = {"AGNO_SQL_DATABASE_URL": url, "OPENAI_BASE_URL": model.base_url}
    target = "tests.server.agents:shop"
    with server_process(target, *options, LEASE_S=str(lease_s), **env) as server:
        yield server


def ask(server: ServerProcess, **more: Any) -> httpx.Response:
    with server.client() as client:
        return client.post("/chat", json=BODY | more)


async def stored(url: str) -> tuple[list[str], RunRecord]:
    async with SQLMemory.open(url, migrate=False) as memory:
        record = await memory.get_run("r-1", "alice")
        assert record is not None
        return contents(await memory.get_messages("alice")), record


class TestSIGTERM:
    """Takes no more requests, and answers those at work."""

    @pytest.mark.guarantee("G65")
    def test_lets_runs_end_within_the_grace_period(self, sqlite_url: str) -> None:
        hold = threading.Event()
        replies = [Reply(text="in time", hold=hold)]
        with (
            ThreadPoolExecutor() as threads,
            ScriptedOpenAI(replies) as model,
            shop(sqlite_url, model) as server,
        ):
            asked = threads.submit(ask, server)
            model.wait_for_requests(1)
            server.signal(signal.SIGTERM)
            until_refused(server)
            hold.set()
            assert asked.result(DEADLINE_S).json()["reply"] == "in time"
            assert server.ended() == 0
        messages, record = asyncio.run(stored(sqlite_url))
        assert messages == ["x", "in time"]
        assert record.status == "completed"

    @pytest.mark.guarantee("G65")
    @pytest.mark.parametrize("streams", [False, True])
    def test_interrupts_what_takes_longer_and_another_process_goes_on(
        self, postgres_url: str, streams: bool
    ) -> None:
        """The lease is an hour: only a run that gave it back can be gone on with at once."""
        replies = [Reply(text="never", hold=threading.Event()), Reply(text="after all")]
        with ThreadPoolExecutor() as threads, ScriptedOpenAI(replies) as model:
            with shop(postgres_url, model, "--grace", "0s", lease_s=3600) as server:
                asked = threads.submit(ask, server, stream=streams)
                model.wait_for_requests(1)
                server.signal(signal.SIGTERM)
                told = asked.result(DEADLINE_S)
                assert server.ended() == 0
            problem = sse_events(told.text)[-1][1] if streams else told.json()
            assert (problem["status"], problem["code"]) == (503, "run_interrupted")
            assert (problem["retryable"], problem["run_id"]) == (True, "r-1")
            _, record = asyncio.run(stored(postgres_url))
            assert (record.status, record.attempt) == ("running", 1)

            with shop(postgres_url, model, lease_s=3600) as server:
                assert ask(server).json()["reply"] == "after all"
        messages, record = asyncio.run(stored(postgres_url))
        assert messages == ["x", "after all"]
        assert (record.status, record.attempt) == ("completed", 2)

    def test_is_obeyed_though_a_tool_blocks_its_thread(self, sqlite_url: str) -> None:
        calls = (ToolCall("c1", "sleep_for_ever", "{}"),)
        with (
            ScriptedOpenAI([Reply(tool_calls=calls)]) as model,
            shop(sqlite_url, model, "--grace", "0s") as server,
        ):
            with httpx.stream("POST", f"{server.url}/chat", json=BODY | {"stream": True}) as told:
                lines = told.iter_lines()
                assert "event: tool_call" in lines
                server.signal(signal.SIGTERM)
                assert "event: error" in lines
            assert server.ended() == 0


def until_refused(server: ServerProcess) -> None:
    """Return when no new connection is accepted."""
    with server.client() as client:
        try:
            while True:
                client.get("/healthz", headers={"connection": "close"})
        except httpx.TransportError:
            return


class TestARunWhoseServerWasKilled:
    """Is taken up by whoever is there."""

    @pytest.mark.guarantee("G66")
    def test_is_completed_by_a_server_that_starts_later_though_nobody_asks(
        self, sqlite_url: str
    ) -> None:
        replies = [Reply(text="never", hold=threading.Event()), Reply(text="after all")]
        with ThreadPoolExecutor() as threads, ScriptedOpenAI(replies) as model:
            with shop(sqlite_url, model) as server:
                asked = threads.submit(ask, server)
                model.wait_for_requests(1)
                server.kill()
                assert isinstance(asked.exception(DEADLINE_S), httpx.TransportError)
            with shop(sqlite_url, model) as server:
                server.logged(re.compile("run r-1 was interrupted and is answered now"))
                assert ask(server).json()["reply"] == "after all"
        assert asyncio.run(stored(sqlite_url))[0] == ["x", "after all"]

    @pytest.mark.guarantee("G66")
    def test_is_completed_by_the_other_server_that_was_there_all_the_time(
        self, postgres_url: str
    ) -> None:
        replies = [Reply(text="never", hold=threading.Event()), Reply(text="after all")]
        with (
            ThreadPoolExecutor() as threads,
            ScriptedOpenAI(replies) as model,
            shop(postgres_url, model) as one,
            shop(postgres_url, model) as other,
        ):
            threads.submit(ask, one)
            model.wait_for_requests(1)
            one.kill()
            other.logged(re.compile("run r-1 was interrupted and is answered now"))
            assert ask(other).json()["reply"] == "after all"


class TestTwoServersOnOneDatabase:
    """Behave as one."""

    @pytest.mark.guarantee("G67")
    def test_answer_one_run_id_once(self, postgres_url: str) -> None:
        hold = threading.Event()
        replies = [Reply(text="once", hold=hold)]
        with (
            ThreadPoolExecutor() as threads,
            ScriptedOpenAI(replies) as model,
            shop(postgres_url, model) as one,
            shop(postgres_url, model) as other,
        ):
            asked = [threads.submit(ask, one)]
            model.wait_for_requests(1)
            asked += [threads.submit(ask, server) for server in (one, other, other)]
            with other.client() as client:
                state = client.get("/run", params={"user_id": "alice", "run_id": "r-1"})
            assert state.json()["status"] == "running"
            hold.set()
            answers = [each.result(DEADLINE_S).json() for each in asked]
            assert [answer["reply"] for answer in answers] == ["once"] * 4
            assert len(model.requests) == 1

    @pytest.mark.guarantee("G67")
    def test_cancel_each_others_runs(self, postgres_url: str) -> None:
        replies = [Reply(text="never", hold=threading.Event())]
        with (
            ThreadPoolExecutor() as threads,
            ScriptedOpenAI(replies) as model,
            shop(postgres_url, model) as one,
            shop(postgres_url, model) as other,
        ):
            asked = threads.submit(ask, one)
            model.wait_for_requests(1)
            with other.client() as client:
                told = client.post("/run/cancel", json={"user_id": "alice", "run_id": "r-1"})
            assert told.json() == {"was_running": True}
            assert asked.result(DEADLINE_S).json()["code"] == "run_cancelled"


class TestAnotherServer:
    """Without the command: the application by itself, or mounted in one of somebody else's."""

    @pytest.mark.guarantee("G65")
    @pytest.mark.parametrize("is_mounted", [False, True])
    async def test_interrupts_runs_when_the_lifespan_ends(
        self, memory: SQLMemory, is_mounted: bool
    ) -> None:
        gate = Gate()
        agent = agent_of(ScriptedModel(gate.think, "after all"), memory)
        app: Any = create_app(agent, grace=timedelta(0))
        host = Starlette(routes=[Mount("/agent", app)], lifespan=app.router.lifespan_context)
        async with served_app(host if is_mounted else app) as client:
            path = "/agent/chat" if is_mounted else "/chat"
            asked = asyncio.create_task(client.post(path, json=BODY))
            async with asyncio.timeout(DEADLINE_S):
                await gate.entered.wait()
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        assert gate.was_cancelled
        output = await agent.run("x", "alice", run_id="r-1")
        assert output.content == "after all"


@pytest.mark.guarantee("G65")
async def test_runs_that_are_just_being_recovered_are_interrupted_too_however_many(
    memory: SQLMemory,
) -> None:
    """They are taken up 16 at once: the next are not begun in vain, nor cancelled."""
    gate, many = Gate(), 40
    model = ScriptedModel(then=gate.think)
    agent = agent_of(model, memory)
    asked = [asyncio.create_task(agent.run("x", f"u-{n}", run_id="r-1")) for n in range(many)]
    await until(lambda: len(model.shown) == many)
    agent.interrupt_runs()
    await asyncio.gather(*asked, return_exceptions=True)

    async with served_app(create_app(agent, grace=timedelta(0))):
        await until(lambda: len(model.shown) > many)
    records = [await memory.get_run("r-1", f"u-{n}") for n in range(many)]
    assert {record.status for record in records if record} == {"running"}
    gate.opened.set()
    assert len(await agent.recover()) == many
