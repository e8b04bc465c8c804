"""Runs belong to the server: their state, cancelling them, clients that go away."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.ext.asyncio import create_async_engine

from agno_sql.memory.sql import SQLMemory
from agno_sql.models.chat_model import ModelReply
from tests.agent.models import ScriptedModel, agent_of, contents
from tests.support.http import DEADLINE_S, served, sse_events
from tests.support.runner import Gate, until

if TYPE_CHECKING:
    import httpx

BODY = {"user_id": "alice", "message": "x", "run_id": "r-1"}
RUN = {"user_id": "alice", "run_id": "r-1"}


async def begin(client: httpx.AsyncClient, gate: Gate, **more: Any) -> asyncio.Task[Any]:
    """Return a request whose run has come to *gate*."""
    request = asyncio.create_task(client.post("/chat", json=BODY | more))
    async with asyncio.timeout(DEADLINE_S):
        await gate.entered.wait()
    return request


class TestAClientThatGoesAway:
    """It loses nothing: its run ends and is stored."""

    @pytest.mark.guarantee("G63")
    @pytest.mark.parametrize("streams", [False, True])
    async def test_gets_its_answer_when_it_asks_again(
        self, memory: SQLMemory, streams: bool
    ) -> None:
        gate = Gate()
        model = ScriptedModel(gate.think)
        async with served(agent_of(model, memory)) as client:
            request = await begin(client, gate, stream=streams)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            gate.opened.set()
            again = await client.post("/chat", json=BODY)
        assert again.json()["reply"] == "let go"
        assert not gate.was_cancelled
        assert len(model.shown) == 1
        assert contents(await memory.get_messages("alice")) == ["x", "let go"]

    @pytest.mark.guarantee("G63")
    async def test_in_a_crowd_loses_nothing_and_leaves_nothing_behind(
        self, memory: SQLMemory
    ) -> None:
        """Connections are reset in the middle of 60 streams, the rest are read to their end."""
        dice = random.Random(60)

        class Slow(ScriptedModel):
            async def stream(self, messages: Any, tools: Any) -> Any:
                for word in range(10):
                    yield f"{word} "
                    await asyncio.sleep(0.01)
                yield ModelReply("".join(f"{word} " for word in range(10)))

        async with served(agent_of(Slow(), memory)) as client:

            async def watch(number: int) -> bool:
                body = {"user_id": f"u-{number}", "message": "x", "run_id": "r", "stream": True}
                leave_after = dice.randrange(1, 40)
                async with client.stream("POST", "/chat", json=body) as answer:
                    count = 0
                    async for _ in answer.aiter_lines():
                        count += 1
                        if count == leave_after:
                            return False
                return True

            ended = await asyncio.gather(*map(watch, range(60)))
            assert {False, True} == set(ended)
            for number in range(60):
                body = {"user_id": f"u-{number}", "message": "x", "run_id": "r"}
                told = await client.post("/chat", json=body)
                assert told.json()["reply"] == "0 1 2 3 4 5 6 7 8 9 "
        for number in range(60):
            assert len(await memory.get_messages(f"u-{number}")) == 2


class TestTheStateOfARun:
    """What is stored about it."""

    async def test_is_told_while_it_is_at_work_and_when_it_has_ended(
        self, memory: SQLMemory
    ) -> None:
        gate = Gate()
        async with served(agent_of(ScriptedModel(gate.think), memory)) as client:
            request = await begin(client, gate)
            state = (await client.get("/run", params=RUN)).json()
            assert (state["status"], state["attempt"], state["finished_at"]) == ("running", 1, None)
            gate.opened.set()
            await request
            state = (await client.get("/run", params=RUN)).json()
        assert (state["status"], state["error"], state["model"]) == (
            "completed",
            None,
            "scripted-1",
        )

    async def test_names_the_kind_of_an_error_and_not_what_it_says(self, memory: SQLMemory) -> None:
        model = ScriptedModel(ValueError("a secret"))
        async with served(agent_of(model, memory)) as client:
            failed = await client.post("/chat", json=BODY)
            state = await client.get("/run", params=RUN)
            again = await client.post("/chat", json=BODY)
        assert (failed.status_code, failed.json()["code"]) == (500, "error")
        assert (state.json()["status"], state.json()["error"]) == ("failed", "ValueError")
        assert (again.status_code, again.json()["code"]) == (409, "run_failed")
        assert "secret" not in failed.text + state.text + again.text

    async def test_is_the_same_404_for_a_run_of_another_user(self, memory: SQLMemory) -> None:
        async with served(agent_of(ScriptedModel("a"), memory)) as client:
            await client.post("/chat", json=BODY)
            foreign = await client.get("/run", params=RUN | {"user_id": "bob"})
            missing = await client.get("/run", params={"user_id": "bob", "run_id": "r-2"})
        assert foreign.status_code == 404
        assert foreign.content == missing.content


class TestCancelling:
    """Ends a run that is at work."""

    @pytest.mark.parametrize("streams", [False, True])
    async def test_tells_those_who_wait(self, memory: SQLMemory, streams: bool) -> None:
        gate = Gate()
        async with served(agent_of(ScriptedModel(gate.think), memory)) as client:
            request = await begin(client, gate, stream=streams)
            cancelled = await client.post("/run/cancel", json=RUN)
            told = await request
            again = await client.post("/run/cancel", json=RUN)
        assert cancelled.json() == {"was_running": True}
        assert again.json() == {"was_running": False}
        problem = sse_events(told.text)[-1][1] if streams else told.json()
        assert (problem["status"], problem["code"]) == (409, "run_cancelled")
        record = await memory.get_run("r-1", "alice")
        assert record is not None
        assert record.status == "cancelled"

    async def test_reaches_a_run_that_waits_for_its_conversation(self, memory: SQLMemory) -> None:
        gate = Gate()
        model = ScriptedModel(gate.think)
        async with served(agent_of(model, memory)) as client:
            first = await begin(client, gate)
            second = asyncio.create_task(client.post("/chat", json=BODY | {"run_id": "r-2"}))
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    told = await client.post("/run/cancel", json=RUN | {"run_id": "r-2"})
                    if told.status_code == 200:
                        break
            assert (await second).json()["code"] == "run_cancelled"
            gate.opened.set()
            assert (await first).json()["reply"] == "let go"
        assert contents(await memory.get_messages("alice")) == ["x", "let go"]

    async def test_a_run_that_is_not_known_is_404(self, memory: SQLMemory) -> None:
        async with served(agent_of(ScriptedModel(), memory)) as client:
            told = await client.post("/run/cancel", json=RUN)
        assert (told.status_code, told.json()["code"]) == (404, "not_found")


async def test_a_busy_conversation_is_409_and_says_when_to_come_again(memory: SQLMemory) -> None:
    gate = Gate()
    agent = agent_of(ScriptedModel(gate.think), memory, busy_timeout=timedelta(0))
    async with served(agent) as client:
        first = await begin(client, gate)
        told = await client.post("/chat", json=BODY | {"run_id": "r-2"})
        gate.opened.set()
        await first
    assert (told.status_code, told.json()["code"]) == (409, "conversation_busy")
    assert told.headers["retry-after"] == "1"
    assert told.json()["run_id"] == "r-2"


@pytest.mark.guarantee("G64")
async def test_500_chats_that_wait_for_their_model_hold_no_connection(postgres_url: str) -> None:
    many, arrived, gate = 500, [0], Gate()

    async def think(_: object) -> str:
        arrived[0] += 1
        return await gate.wait()

    async with SQLMemory.open(postgres_url):
        pass
    engine = create_async_engine(
        postgres_url, poolclass=AsyncAdaptedQueuePool, pool_size=5, max_overflow=0
    )
    try:
        agent = agent_of(ScriptedModel(then=think), SQLMemory(engine))
        async with served(agent) as client:
            asked = [
                asyncio.create_task(
                    client.post("/chat", json={"user_id": f"u-{n}", "message": "x"})
                )
                for n in range(many)
            ]
            await until(lambda: arrived[0] == many)
            assert isinstance(engine.pool, AsyncAdaptedQueuePool)
            assert engine.pool.checkedout() == 0
            assert (await client.get("/readyz")).status_code == 200
            gate.opened.set()
            answers = await asyncio.gather(*asked)
        assert [answer.status_code for answer in answers] == [200] * many
    finally:
        await engine.dispose()
