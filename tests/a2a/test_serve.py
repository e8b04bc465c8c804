"""The command with --a2a: real processes, found by their own card."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from a2a.client import ClientConfig, create_client
from a2a.utils.errors import InternalError

from agno_sql.testing import Reply, ScriptedOpenAI
from tests.a2a.clients import COMPLETED, Other, answer, when_ended
from tests.support.http import DEADLINE_S, server_process
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.http import ServerProcess

PAGE = (CHECKOUT / "docs" / "a2a.md").read_text("utf-8")
MISSING = """
import sys
sys.modules["{module}"] = None
from agno_sql.cli.main import main
sys.argv = ["agno-sql", "serve", "--demo", "--a2a", "--port", "0", "--database", "sqlite:///x.db"]
main()
"""


@contextmanager
def shop(url: str, model: ScriptedOpenAI, *options: str) -> Iterator[ServerProcess]:
    env = {"AGNO_SQL_DATABASE_URL": url, "OPENAI_BASE_URL": model.base_url, "LEASE_S": "1"}
    with server_process("tests.server.agents:shop", "--a2a", *options, **env) as server:
        yield server


@asynccontextmanager
async def found(server: ServerProcess, *, streams: bool = False) -> AsyncIterator[Other]:
    """Yield a client that knows no more of the server than its address."""
    async with httpx.AsyncClient(timeout=DEADLINE_S) as http:
        config = ClientConfig(streaming=streams, httpx_client=http)
        async with await create_client(server.url, config) as client:
            yield Other(client)


@pytest.mark.guarantee("G75")
def test_the_example_of_the_page_remembers(sqlite_url: str) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (example,) = [one for one in examples if "create_client" in one]
    with server_process("--demo", "--a2a", "--database", sqlite_url) as server:
        done = subprocess.run(
            [sys.executable, "-c", example.replace("http://localhost:8080", server.url)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONWARNINGS": "error"},
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Nice to meet you, Alice!", "Your name is Alice."]


@pytest.mark.guarantee("G80")
async def test_a_task_whose_server_was_killed_is_answered_by_the_next(database_url: str) -> None:
    replies = [Reply(text="never", hold=threading.Event()), Reply(text="after all")]
    with ScriptedOpenAI(replies) as model:
        with shop(database_url, model) as server:
            async with found(server) as other:
                begun = await other.say("x", "alice", at_once=True)
                await asyncio.to_thread(model.wait_for_requests, 1)
            server.kill()
        with shop(database_url, model) as server:
            async with found(server) as other:
                task = await when_ended(other, begun.id)
    assert answer(task) == "after all"


class TestSIGTERM:
    """Ends streams as it ends their tasks, not before."""

    @pytest.mark.guarantee("G80")
    async def test_lets_a_stream_come_to_its_end_within_the_grace_period(
        self, sqlite_url: str
    ) -> None:
        hold = threading.Event()
        replies = [Reply(text="one two", hold=hold, hold_after_words=1)]
        with ScriptedOpenAI(replies) as model, shop(sqlite_url, model) as server:
            async with found(server, streams=True) as other:
                asked = asyncio.create_task(other.say("x", "alice"))
                await asyncio.to_thread(model.wait_for_requests, 1)
                server.signal(signal.SIGTERM)
                # What serves the streams looks twice a second whether the server stops.
                done, _ = await asyncio.wait([asked], timeout=1.5)
                assert not done
                hold.set()
                task = await asked
            assert server.ended() == 0
        assert (task.status.state, answer(task)) == (COMPLETED, "one two")

    @pytest.mark.guarantee("G80")
    async def test_interrupts_what_takes_longer_and_another_goes_on(self, sqlite_url: str) -> None:
        replies = [Reply(text="never", hold=threading.Event()), Reply(text="after all")]
        with ScriptedOpenAI(replies) as model:
            with shop(sqlite_url, model, "--grace", "0s") as server:
                async with found(server, streams=True) as other:
                    asked = asyncio.create_task(other.say("x", "alice", message_id="m"))
                    await asyncio.to_thread(model.wait_for_requests, 1)
                    server.signal(signal.SIGTERM)
                    with pytest.raises(InternalError, match="the server stops"):
                        await asked
                assert server.ended() == 0
                assert "Traceback" not in server.log
            with shop(sqlite_url, model) as server:
                async with found(server) as other:
                    assert answer(await other.say("x", "alice", message_id="m")) == "after all"


async def test_the_card_tells_the_address_that_the_command_was_told(sqlite_url: str) -> None:
    options = ("--demo", "--database", sqlite_url, "--a2a")
    told = ("--a2a-url", "https://agent.example.com/x/")
    with server_process(*options, *told) as server, server.client() as client:
        card: Any = client.get("/.well-known/agent-card.json").json()
    assert card["url"] == "https://agent.example.com/x/a2a"
    with server_process(*options) as server, server.client() as client:
        card = client.get("/.well-known/agent-card.json").json()
        assert card["url"] == f"{server.url}/a2a"


def test_what_a_client_does_wrong_is_not_in_the_log(sqlite_url: str) -> None:
    headers = {"content-type": "application/json", "A2A-Version": "1.0"}
    bodies = (b"{", b"[]", b'{"jsonrpc": "2.0", "method": "GetTask", "params": "secret"}')
    options = ("--demo", "--a2a", "--database", sqlite_url)
    with server_process(*options) as server, server.client() as client:
        for body in bodies:
            assert client.post("/a2a", content=body, headers=headers).status_code == 200
            client.post("/a2a/message:send", content=body, headers=headers)
    assert "Traceback" not in server.log
    assert "secret" not in server.log


@pytest.mark.parametrize("module", ["a2a", "sse_starlette"])
def test_without_the_extra_the_error_names_the_command(tmp_path: Path, module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING.format(module=module)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "pip install 'agno-sql[a2a]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_sdk_is_imported_only_when_it_is_asked_for() -> None:
    script = (
        "import sys; from agno_sql.server import A2A, create_app; A2A(url='http://a.example');"
        "assert not {'a2a', 'sse_starlette', 'google.protobuf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
