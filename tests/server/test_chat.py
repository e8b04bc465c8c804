"""Talking to the agent over HTTP."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.errors import ModelUnavailableError
from agno_sql.message import Usage
from agno_sql.models.chat_model import ModelReply
from agno_sql.models.demo import DemoModel
from tests.agent.models import ScriptedModel, agent_of, asks, call, contents
from tests.support.http import DEADLINE_S, served, server_process, sse_events
from tests.support.runner import Gate

if TYPE_CHECKING:
    import httpx

    from agno_sql.memory.sql import SQLMemory

JSON = {"Content-Type": "application/json"}


def say(client: httpx.Client, body: str) -> dict[str, Any]:
    """Post *body* as it is, with the headers of the README's curl commands."""
    answer = client.post("/chat", content=body, headers=JSON)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.guarantee("G60")
def test_two_users_are_remembered_apart_also_after_a_restart(database_url: str) -> None:
    with server_process("--demo", "--database", database_url) as server, server.client() as client:
        first = say(client, '{"user_id": "user-a", "message": "My name is Alice"}')
        say(client, '{"user_id": "user-b", "message": "My name is Bob"}')
        assert set(first) == {"user_id", "reply", "run_id", "session_id", "usage"}
        assert (first["user_id"], first["session_id"]) == ("user-a", "default")
        alice = say(client, '{"user_id": "user-a", "message": "What is my name?"}')
        bob = say(client, '{"user_id": "user-b", "message": "What is my name?"}')
        assert [alice["reply"], bob["reply"]] == ["Your name is Alice.", "Your name is Bob."]

    with server_process("--demo", "--database", database_url) as server, server.client() as client:
        alice = say(client, '{"user_id": "user-a", "message": "What is my name?"}')
        bob = say(client, '{"user_id": "user-b", "message": "What is my name?"}')
        assert [alice["reply"], bob["reply"]] == ["Your name is Alice.", "Your name is Bob."]


async def test_the_answer_tells_the_run_and_its_cost(memory: SQLMemory) -> None:
    agent = agent_of(ScriptedModel(ModelReply("hi", usage=Usage(7, 3))), memory)
    async with served(agent) as client:
        told = await client.post(
            "/chat", json={"user_id": "alice", "session_id": "s", "message": "x", "run_id": "r-1"}
        )
    assert told.json() == {
        "user_id": "alice",
        "reply": "hi",
        "run_id": "r-1",
        "session_id": "s",
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }


class TestTheSameRunId:
    """As a body field or as the header that others use for it."""

    @pytest.mark.guarantee("G61")
    @pytest.mark.parametrize("by_header", [False, True])
    async def test_again_gets_the_same_answer_without_asking_the_model(
        self, memory: SQLMemory, by_header: bool
    ) -> None:
        model = ScriptedModel("once")
        body: dict[str, Any] = {"user_id": "alice", "message": "x"}
        headers = {"Idempotency-Key": "r-1"} if by_header else {}
        body |= {} if by_header else {"run_id": "r-1"}
        async with served(agent_of(model, memory)) as client:
            answers = [await client.post("/chat", json=body, headers=headers) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        assert answers[0].json()["run_id"] == "r-1"
        assert len(model.shown) == 1

    async def test_that_does_not_fit_our_rule_is_hashed(self, memory: SQLMemory) -> None:
        key = "a key with blanks, " * 20 + "x"
        async with served(agent_of(ScriptedModel("once"), memory)) as client:
            body = {"user_id": "alice", "message": "x"}
            for _ in range(2):
                told = await client.post("/chat", json=body, headers={"Idempotency-Key": key})
                digest = sha256(key.encode()).hexdigest()
                assert told.json()["run_id"] == f"sha256:{digest}"

    async def test_twice_in_one_request_must_be_the_same(self, memory: SQLMemory) -> None:
        body = {"user_id": "alice", "message": "x", "run_id": "r-1"}
        async with served(agent_of(ScriptedModel("once"), memory)) as client:
            told = await client.post("/chat", json=body, headers={"Idempotency-Key": "r-2"})
            assert (told.status_code, told.json()["code"]) == (422, "invalid_run_id")
            told = await client.post("/chat", json=body, headers={"Idempotency-Key": "r-1"})
            assert told.status_code == 200

    async def test_must_not_be_empty(self, memory: SQLMemory) -> None:
        async with served(agent_of(ScriptedModel(), memory)) as client:
            told = await client.post(
                "/chat", json={"user_id": "a", "message": "x"}, headers={"Idempotency-Key": ""}
            )
        assert (told.status_code, told.json()["code"]) == (422, "invalid_run_id")

    @pytest.mark.guarantee("G61")
    @pytest.mark.parametrize("is_at_work", [False, True])
    async def test_with_another_message_is_refused(
        self, memory: SQLMemory, is_at_work: bool
    ) -> None:
        gate = Gate()
        body = {"user_id": "alice", "run_id": "r-1"}
        async with served(agent_of(ScriptedModel(gate.think), memory)) as client:
            first = asyncio.create_task(client.post("/chat", json=body | {"message": "x"}))
            async with asyncio.timeout(DEADLINE_S):
                await gate.entered.wait()
                if not is_at_work:
                    gate.opened.set()
                    await first
                told = await client.post("/chat", json=body | {"message": "y"})
                gate.opened.set()
                await first
        assert (told.status_code, told.json()["code"]) == (409, "run_id_reused")

    @pytest.mark.guarantee("G61")
    async def test_of_many_clients_at_once_asks_the_model_once(self, memory: SQLMemory) -> None:
        gate = Gate()
        model = ScriptedModel(gate.think)
        body = {"user_id": "alice", "message": "x", "run_id": "r-1"}
        async with served(agent_of(model, memory)) as client:
            asked = [asyncio.create_task(client.post("/chat", json=body)) for _ in range(20)]
            async with asyncio.timeout(DEADLINE_S):
                await gate.entered.wait()
                gate.opened.set()
                answers = await asyncio.gather(*asked)
        assert {answer.json()["reply"] for answer in answers} == {"let go"}
        assert len(model.shown) == 1
        assert contents(await memory.get_messages("alice")) == ["x", "let go"]


class TestAStream:
    """Server-sent events: what happens, as it happens."""

    @pytest.mark.parametrize("by_header", [False, True])
    async def test_tells_text_and_tool_calls_and_ends_with_the_answer(
        self, memory: SQLMemory, by_header: bool
    ) -> None:
        def look_up(order: int) -> str:
            return f"order {order}\nis on its way"

        model = ScriptedModel(
            asks(call("look_up", "c1", order=1), text="Let me see."), "On its way"
        )
        headers = {"Accept": "text/event-stream"} if by_header else {}
        body = {"user_id": "alice", "message": "x", "run_id": "r-1"}
        body |= {} if by_header else {"stream": True}  # type: ignore[dict-item]
        async with served(agent_of(model, memory, tools=[look_up])) as client:
            told = await client.post("/chat", json=body, headers=headers)
        assert told.headers["content-type"].startswith("text/event-stream")
        events = sse_events(told.text)
        assert events[0] == ("run", {"user_id": "alice", "session_id": "default", "run_id": "r-1"})
        assert "".join(data["text"] for name, data in events if name == "text") == (
            "Let me see.On its way"
        )
        assert ("tool_call", {"id": "c1", "name": "look_up", "arguments": '{"order": 1}'}) in events
        result = {"id": "c1", "name": "look_up", "content": "order 1\nis on its way"}
        assert ("tool_result", result) in events
        assert events[-1][0] == "done"
        assert events[-1][1]["reply"] == "On its way"

    async def test_escapes_whatever_a_model_says(self, memory: SQLMemory) -> None:
        said = "a\n\nevent: done\ndata: {}\r\n\0 \u2028 \ud800 ü"
        async with served(agent_of(ScriptedModel(said), memory)) as client:
            told = await client.post(
                "/chat", json={"user_id": "ü\u2028", "message": "x", "stream": True}
            )
        events = sse_events(told.text)
        assert [name for name, _ in events if name == "done"] == ["done"]
        assert "".join(data["text"] for name, data in events if name == "text") == said
        assert events[0][1]["user_id"] == "ü\u2028"
        assert events[-1][1]["reply"] == said.replace("\ud800", "\ufffd")

    async def test_of_a_run_that_fails_ends_with_a_problem(self, memory: SQLMemory) -> None:
        model = ScriptedModel(ModelUnavailableError("secret-host:9999 refused"))
        async with served(agent_of(model, memory)) as client:
            told = await client.post("/chat", json={"user_id": "a", "message": "x", "stream": True})
        name, problem = sse_events(told.text)[-1]
        assert (name, problem["status"], problem["code"]) == ("error", 503, "model_unavailable")
        assert "secret" not in told.text

    async def test_whose_answer_is_rejected_after_its_text_ends_with_a_problem(
        self, memory: SQLMemory
    ) -> None:
        def reject(_: object) -> None:
            raise ValueError("a secret of the hook")

        agent = agent_of(ScriptedModel("an answer"), memory, post_hooks=[reject])
        async with served(agent) as client:
            told = await client.post("/chat", json={"user_id": "a", "message": "x", "stream": True})
        assert [name for name, _ in sse_events(told.text)] == ["run", "text", "text", "error"]
        assert sse_events(told.text)[-1][1]["status"] == 500
        assert "secret" not in told.text
        assert contents(await memory.get_messages("a")) == ["x"]

    @pytest.mark.guarantee("G62")
    async def test_is_told_from_its_beginning_to_who_comes_later(self, memory: SQLMemory) -> None:
        gate = Gate()

        class Slow(ScriptedModel):
            async def stream(self, messages: Any, tools: Any) -> Any:
                yield "one "
                yield await gate.wait()
                yield ModelReply("one let go")

        body = {"user_id": "a", "message": "x", "run_id": "r-1", "stream": True}
        async with served(agent_of(Slow(), memory)) as client:
            first = asyncio.create_task(client.post("/chat", json=body))
            async with asyncio.timeout(DEADLINE_S):
                await gate.entered.wait()
                async with client.stream("POST", "/chat", json=body) as second:
                    lines = second.aiter_lines()
                    async for line in lines:
                        if line.startswith("data: ") and "text" in json.loads(line[6:]):
                            break
                    gate.opened.set()
                    rest = [line async for line in lines]
                told = await first
        assert [name for name, _ in sse_events(told.text)] == ["run", "text", "text", "done"]
        assert json.loads(rest[-2][6:])["reply"] == "one let go"
        assert contents(await memory.get_messages("a")) == ["x", "one let go"]

    async def test_of_a_run_that_has_ended_tells_its_answer(self, memory: SQLMemory) -> None:
        body = {"user_id": "a", "message": "x", "run_id": "r-1"}
        async with served(agent_of(ScriptedModel("once"), memory)) as client:
            await client.post("/chat", json=body)
            told = await client.post("/chat", json=body | {"stream": True})
        assert [name for name, _ in sse_events(told.text)] == ["run", "done"]
        assert sse_events(told.text)[-1][1]["reply"] == "once"


async def test_users_at_once_are_answered_apart(memory: SQLMemory) -> None:
    async with served(agent_of(DemoModel(), memory)) as client:

        async def talk(name: str) -> str:
            body = {"user_id": name, "message": f"My name is {name}"}
            await client.post("/chat", json=body)
            told = await client.post("/chat", json=body | {"message": "What is my name?"})
            reply: str = told.json()["reply"]
            return reply

        names = [f"User{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
        replies = await asyncio.gather(*map(talk, names))
    assert replies == [f"Your name is {name}." for name in names]
