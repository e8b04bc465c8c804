"""Which conversation a message belongs to, over every way that the protocol has."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from a2a.types import TaskState
from a2a.utils.errors import InvalidParamsError

from agno_sql.errors import InvalidOptionError
from agno_sql.memory.sql import SQLMemory
from agno_sql.models.demo import DemoModel
from agno_sql.server import A2A
from agno_sql.server.a2a.card import card_of
from tests.a2a.clients import AUTH, V1, WAYS, answer, as_user, message, of_server, rpc, served_a2a
from tests.agent.models import ScriptedModel, agent_of, contents
from tests.support.http import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from tests.a2a.clients import Other

HOSTILE = [
    "a/b?c#d%2F e",
    "' OR 1=1; --",
    "👩‍👩‍👧 مرحبا \u202e",
    "../../etc/passwd",
    "default",
    "%00",
    "<script>alert(1)</script>",
]


@asynccontextmanager
async def talking(url: str, binding: str, *, streams: bool) -> AsyncIterator[Other]:
    """Start a server that remembers names, and talk to it."""
    async with SQLMemory.open(url) as memory:
        agent = agent_of(DemoModel(), memory)
        async with (
            served_a2a(agent) as http,
            of_server(http.base_url, binding, streams=streams) as other,
        ):
            yield other


@pytest.mark.guarantee("G75")
@pytest.mark.parametrize("binding, streams", WAYS)
async def test_goes_on_over_several_turns_and_a_restart_of_the_server(
    database_url: str, binding: str, streams: bool
) -> None:
    async with talking(database_url, binding, streams=streams) as other:
        for context, name in (("a", "Alice"), ("b", "Bob")):
            first = await other.say(f"My name is {name}", context)
            assert first.status.state == TaskState.TASK_STATE_COMPLETED
            assert first.context_id == context
            assert name in answer(await other.say("What's my name?", context))
    async with talking(database_url, binding, streams=streams) as other:
        assert "Alice" in answer(await other.say("What's my name?", "a"))
        assert "Bob" in answer(await other.say("What's my name?", "b"))
        kept = await other.get(first.id)
    assert kept == first if not streams else answer(kept) == answer(first)
    assert kept.history[0].parts[0].text == "My name is Bob"


@pytest.mark.guarantee("G76")
async def test_without_authentication_the_context_is_the_user(memory: SQLMemory) -> None:
    agent = agent_of(ScriptedModel(then="hello"), memory)
    async with served_a2a(agent) as http, of_server(http.base_url) as other:
        await other.say("x", "alice")
    assert contents(await memory.get_messages("alice")) == ["x", "hello"]


@pytest.mark.guarantee("G76")
async def test_with_authentication_the_context_is_a_session_of_the_user(memory: SQLMemory) -> None:
    agent = agent_of(ScriptedModel(then="hello"), memory)
    async with (
        served_a2a(agent, auth=AUTH) as http,
        of_server(http.base_url, headers=as_user("alice")) as other,
    ):
        await other.say("x", "work")
    assert contents(await memory.get_messages("alice", session_id="work")) == ["x", "hello"]
    assert await memory.size("work") == 0


@pytest.mark.guarantee("G76")
@pytest.mark.parametrize("auth", [(), AUTH])
async def test_without_a_context_one_is_generated_and_goes_on_when_it_is_sent(
    sqlite_memory: SQLMemory, auth: Any
) -> None:
    agent = agent_of(DemoModel(), sqlite_memory)
    async with (
        served_a2a(agent, auth=auth) as http,
        of_server(http.base_url, headers=as_user("alice")) as other,
    ):
        first = await other.say("My name is Alice")
        assert len(first.context_id) >= 32
        again = await other.say("What's my name?", first.context_id)
        assert "Alice" in answer(again)
        assert again.context_id == first.context_id
        foreign = await other.say("What's my name?")
        assert "Alice" not in answer(foreign)
        assert foreign.context_id != first.context_id


@pytest.mark.guarantee("G76")
@pytest.mark.parametrize("auth", [(), AUTH])
async def test_any_id_of_up_to_255_characters_is_a_context(memory: SQLMemory, auth: Any) -> None:
    agent = agent_of(ScriptedModel(then=lambda shown: f"{len(shown)} messages"), memory)
    async with (
        served_a2a(agent, auth=auth) as http,
        of_server(http.base_url, "HTTP+JSON", headers=as_user("alice")) as other,
    ):
        for context in [*HOSTILE, "x" * 37, "y" * 255, "🦉" * 255]:
            await other.say("one", context)
            task = await other.say("two", context)
            assert (task.context_id, answer(task)) == (context, "3 messages")
            assert await other.get(task.id) == task
            listed = await other.list(context_id=context)
            assert {one.context_id for one in listed.tasks} == {context}
            assert listed.total_size == 2


@pytest.mark.guarantee("G76")
@pytest.mark.parametrize("context", ["x" * 256, "a\nb", "a\0b", "\x9f"])
async def test_what_can_be_no_id_is_refused_and_stores_nothing(
    sqlite_memory: SQLMemory, context: str
) -> None:
    model = ScriptedModel(then="hello")
    async with (
        served_a2a(agent_of(model, sqlite_memory)) as http,
        of_server(http.base_url) as other,
    ):
        with pytest.raises(InvalidParamsError, match="contextId"):
            await other.say("x", context)
        with pytest.raises(InvalidParamsError, match="contextId"):
            await other.list(context_id=context)
    assert not model.shown


class TestProtocol03:
    """What the protocol was before 1.0, by JSON-RPC."""

    @pytest.mark.guarantee("G82")
    async def test_is_spoken_by_a_client_that_knows_no_other(self, memory: SQLMemory) -> None:
        async with served_a2a(agent_of(DemoModel(), memory)) as http:
            first = await ask(http, "message/send", message=old_message("My name is Alice"))
            task = first["result"]
            assert (task["kind"], task["contextId"]) == ("task", "alice")
            assert task["status"]["state"] == "completed"
            second = old_message("What's my name?", messageId="m-2")
            task = (await ask(http, "message/send", message=second))["result"]
            assert "Alice" in task["artifacts"][0]["parts"][0]["text"]
            assert (await ask(http, "tasks/get", id=task["id"]))["result"] == task
            ended = await ask(http, "tasks/cancel", id=task["id"])
            assert ended["error"]["code"] == -32002
            missing = await ask(http, "tasks/get", id="none")
            assert missing["error"]["code"] == -32001

    @pytest.mark.guarantee("G82")
    async def test_streams(self, sqlite_memory: SQLMemory) -> None:
        async with served_a2a(agent_of(ScriptedModel("one two"), sqlite_memory)) as http:
            told = await http.post("/a2a", json=rpc("message/stream", message=old_message("x")))
        events = events_of(told.text)
        assert [event["kind"] for event in events] == [
            "task",
            *["artifact-update"] * 3,
            "status-update",
        ]
        assert "".join(e["artifact"]["parts"][0]["text"] for e in events[1:-1]) == "one two"
        assert (events[0]["status"]["state"], events[-1]["status"]["state"]) == (
            "working",
            "completed",
        )
        assert events[-1]["final"]

    @pytest.mark.guarantee("G79")
    async def test_files_and_data_are_refused(self, sqlite_memory: SQLMemory) -> None:
        model = ScriptedModel()
        async with served_a2a(agent_of(model, sqlite_memory)) as http:
            for part in (
                {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain"}},
                {"kind": "file", "file": {"uri": "https://example.com/a.pdf"}},
                {"kind": "data", "data": {"a": 1}},
            ):
                parts = [{"kind": "text", "text": "read this"}, part]
                told = await ask(http, "message/send", message=old_message("", parts=parts))
                assert told["error"]["code"] == -32005
        assert not model.shown


class TestTheCard:
    """Tells other agents how to call this one."""

    async def test_is_told_to_everybody_and_says_what_is_there(
        self, sqlite_memory: SQLMemory
    ) -> None:
        agent = agent_of(ScriptedModel(), sqlite_memory, instructions="a secret")
        async with served_a2a(agent, auth=AUTH) as http:
            told = await http.get("/.well-known/agent-card.json")
        card = told.json()
        assert told.status_code == 200
        assert [
            (i["protocolBinding"], i["protocolVersion"], i["url"])
            for i in card["supportedInterfaces"]
        ] == [
            ("JSONRPC", "1.0", "http://agent.example/a2a"),
            ("HTTP+JSON", "1.0", "http://agent.example/a2a"),
            ("JSONRPC", "0.3", "http://agent.example/a2a"),
        ]
        assert card["name"] == "tester"
        assert card["capabilities"]["streaming"] is True
        assert card["capabilities"]["pushNotifications"] is False
        assert card["defaultInputModes"] == ["text/plain"]
        assert card["securityRequirements"] == [{"schemes": {"bearer": {}}}]
        assert "secret" not in told.text

    async def test_is_not_there_unless_asked_for(self, sqlite_memory: SQLMemory) -> None:
        async with served(agent_of(ScriptedModel(), sqlite_memory)) as http:
            assert (await http.get("/.well-known/agent-card.json")).status_code == 404
            body = rpc("SendMessage", message=message())
            assert (await http.post("/a2a", json=body, headers=V1)).status_code == 404

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "agent.example",
            "ftp://a.example",
            "http://",
            "https://u:p@a",
            "http://a?b=c",
            "http://[",
            "http://a#b",
        ],
    )
    def test_needs_an_address_that_others_can_call(self, url: str) -> None:
        with pytest.raises(InvalidOptionError, match="url of A2A"):
            A2A(url=url)

    def test_an_address_may_have_a_path(self) -> None:
        card = card_of("a", A2A(url="https://a.example/agents/1/"), is_authenticated=False)
        assert card.supported_interfaces[0].url == "https://a.example/agents/1/a2a"
        assert not card.security_requirements


def old_message(text: str, **more: Any) -> dict[str, Any]:
    parts = [{"kind": "text", "text": text}]
    told = {"kind": "message", "messageId": "m", "contextId": "alice", "role": "user"}
    return told | {"parts": parts} | more


async def ask(http: httpx.AsyncClient, method: str, **params: Any) -> Any:
    told = await http.post("/a2a", json=rpc(method, **params))
    assert told.status_code == 200
    return told.json()


def events_of(text: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data")]
    return [json.loads(one)["result"] for one in data]
