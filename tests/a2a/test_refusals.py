"""What can't be answered is refused, by the right error, without telling or storing anything."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from a2a.helpers import new_data_part
from a2a.types import Part
from a2a.utils.errors import ContentTypeNotSupportedError

from agno_sql.memory.sql import SQLMemory
from agno_sql.models.demo import DemoModel
from agno_sql.server import Limits
from tests.a2a.clients import V1, WAYS, message, of_server, rpc, served_a2a, talking
from tests.agent.models import ScriptedModel, agent_of
from tests.support.runner import Gate
from tests.support.tcp import behind_proxy

if TYPE_CHECKING:
    import httpx

DEEP: Final = json.loads('{"a":' * 150 + "1" + "}" * 150)
WRONG_MESSAGES: Final[list[dict[str, Any]]] = [
    {"parts": []},
    {"parts": [{}]},
    {"parts": [{"text": ""}]},
    {"parts": [{"text": "\ud800"}]},
    {"parts": [{"text": 1}]},
    {"parts": [{"text": "a", "data": {}}]},
    {"parts": "x"},
    {"role": "ROLE_AGENT"},
    {"role": "robot"},
    {"role": 2},
    {"messageId": ""},
    {"messageId": {}},
    {"metadata": [1]},
    {"metadata": DEEP},
    {"taskId": "x\0"},
]
WRONG_CALLS: Final[list[dict[str, Any]]] = [
    {"jsonrpc": "1.0"},
    {"id": [1]},
    {"id": True},
    {"id": 1.5},
    {"method": 1},
    {"method": "__class__"},
    {"method": "nothing"},
    {"params": None},
    {"params": "x"},
    {"params": []},
    {"params": {"id": 5}},
    {"params": {"id": "x", "historyLength": "y"}},
]
WRONG_OLD_CALLS: Final[list[dict[str, Any]]] = [
    {},
    {"message": {}},
    {"message": message()},
    {"message": message(parts=[{"kind": "file", "file": {"bytes": "!a"}}], role="user")},
    {"message": message(parts=[{"kind": "data", "data": DEEP}], role="user")},
    {"message": message(metadata=DEEP, role="user")},
]
UNREADABLE: Final[list[bytes]] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"1",
    b"{}",
    b"\xff",
    '{"message": {}}'.encode("utf-16"),
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"message": {}, "message": {}}',
    b'{"id": ' + b"9" * 5000 + b"}",
    *(json.dumps({"message": message(**wrong)}).encode() for wrong in WRONG_MESSAGES),
    json.dumps({"message": message(), "configuration": 5}).encode(),
    json.dumps({"message": message(), "configuration": {"historyLength": -1}}).encode(),
    json.dumps({"message": message(), "configuration": {"historyLength": 10**12}}).encode(),
]
ODD_CALLS: Final[list[bytes]] = [
    b'{"jsonrpc": "2.0"}',
    b'{"jsonrpc": "2.0", "id": "\\ud800", "method": "GetTask"}',
    b'{"jsonrpc": "2.0", "id": NaN, "method": "GetTask"}',
    *(json.dumps(rpc("GetTask", id="x") | wrong).encode() for wrong in WRONG_CALLS),
    json.dumps([rpc("GetTask", id="x")] * 2).encode(),
    *(json.dumps(rpc("message/send", **params)).encode() for params in WRONG_OLD_CALLS),
    json.dumps(rpc("tasks/get", id="x", historyLength=10**12)).encode(),
]
TELLTALE: Final = ("Traceback", '.py"', "SELECT", "sqlite", "site-packages")


def checked(told: httpx.Response) -> None:
    """Assert that a refusal is the client's fault, and tells nothing of the server."""
    assert 200 <= told.status_code < 500, told.text
    if told.status_code == 200:
        assert told.json()["error"]["code"] != -32603, told.text
        assert "result" not in told.json()
    assert not [word for word in TELLTALE if word in told.text], told.text


class TestWhatCanNotBeRead:
    """Is refused by an error of the client's, however it is broken."""

    @pytest.mark.guarantee("G83")
    @pytest.mark.parametrize("version", [V1, {}, {"A2A-Version": "0.3"}, {"A2A-Version": "x"}])
    async def test_by_json_rpc(self, sqlite_memory: SQLMemory, version: dict[str, str]) -> None:
        model = ScriptedModel()
        headers = {"content-type": "application/json"} | version
        bodies = [*ODD_CALLS, *map(as_call, UNREADABLE)]
        async with served_a2a(agent_of(model, sqlite_memory)) as http:
            for body in bodies:
                checked(await http.post("/a2a", content=body, headers=headers))
        assert not model.shown

    @pytest.mark.guarantee("G83")
    @pytest.mark.parametrize("path", ["message:send", "message:stream"])
    async def test_by_rest(self, sqlite_memory: SQLMemory, path: str) -> None:
        model = ScriptedModel()
        headers = {"content-type": "application/json"} | V1
        async with served_a2a(agent_of(model, sqlite_memory)) as http:
            for body in UNREADABLE:
                told = await http.post(f"/a2a/{path}", content=body, headers=headers)
                checked(told)
                assert told.status_code in (400, 404), body
            told = await http.post(f"/a2a/{path}", json={"message": message()})
            assert (told.status_code, reason(told)) == (400, "VERSION_NOT_SUPPORTED")
        assert not model.shown

    @pytest.mark.guarantee("G83")
    @pytest.mark.parametrize(
        "path",
        [
            "tasks?pageSize=x",
            "tasks?contextId=alice&pageSize=99999999999999999999",
            "tasks?contextId=a%00b",
            "tasks?contextId=alice&statusTimestampAfter=x",
            "tasks/x?historyLength=x",
            "tasks/x?historyLength=-1",
            "tasks/%00",
            "tasks/%FF",
            "tasks/%2F..%2F..%2Fetc",
            f"tasks/{'A' * 30_000}",
            "tasks/x:subscribe",
            "tasks/x:cancel",
            "v1/card",
            "x/tasks",
            "",
        ],
    )
    async def test_by_a_path(self, sqlite_memory: SQLMemory, path: str) -> None:
        async with served_a2a(agent_of(ScriptedModel(), sqlite_memory)) as http:
            told = await http.get(f"/a2a/{path}", headers=V1)
        checked(told)
        assert told.status_code in (400, 404, 405)

    async def test_by_another_method_names_those_that_there_are(
        self, sqlite_memory: SQLMemory
    ) -> None:
        async with served_a2a(agent_of(ScriptedModel(), sqlite_memory)) as http:
            for path in ("/a2a", "/a2a/message:send", "/a2a/tasks/x:cancel"):
                told = await http.put(path, json={})
                assert (told.status_code, told.headers["allow"]) == (405, "POST")


class TestInputThatIsNoText:
    """Is refused as a whole: no part of a message is left out silently."""

    @pytest.mark.guarantee("G79")
    @pytest.mark.parametrize("binding, streams", WAYS)
    async def test_with_the_error_of_the_protocol(
        self, memory: SQLMemory, binding: str, streams: bool
    ) -> None:
        model = ScriptedModel()
        async with talking(agent_of(model, memory), binding, streams=streams) as other:
            for part in (
                Part(raw=b"hello", media_type="text/plain"),
                Part(url="https://example.com/a.txt"),
                new_data_part({"a": 1}),
                Part(text="<p>", media_type="text/html"),
                Part(text="{}", media_type="application/json"),
            ):
                with pytest.raises(ContentTypeNotSupportedError):
                    await other.say("", "alice", parts=[Part(text="read this"), part])
        assert not model.shown
        assert await memory.size("alice") == 0

    @pytest.mark.guarantee("G79")
    async def test_but_any_number_of_texts_is_read(self, sqlite_memory: SQLMemory) -> None:
        model = ScriptedModel("hello")
        parts = [Part(text="one"), Part(text="two", media_type="text/plain; charset=utf-8")]
        async with talking(agent_of(model, sqlite_memory)) as other:
            await other.say("", "alice", parts=parts)
        assert model.shown[0][-1].content == "one\ntwo"

    @pytest.mark.guarantee("G79")
    async def test_so_is_who_reads_no_text(self, sqlite_memory: SQLMemory) -> None:
        model = ScriptedModel(then="hello")
        async with served_a2a(agent_of(model, sqlite_memory)) as http:
            for modes, code in [
                (["image/png"], "CONTENT_TYPE_NOT_SUPPORTED"),
                (["image/png", "text/plain"], None),
                (["text"], None),
                (["*/*"], None),
            ]:
                body = {"message": message(), "configuration": {"acceptedOutputModes": modes}}
                told = await http.post("/a2a/message:send", json=body, headers=V1)
                assert (reason(told) if told.status_code == 400 else None) == code


class TestPushNotifications:
    """Are none, as the card says."""

    @pytest.mark.guarantee("G79")
    async def test_are_refused_wherever_they_are_asked_for(self, sqlite_memory: SQLMemory) -> None:
        model = ScriptedModel()
        push = {"url": "https://example.com/hook", "taskId": "x"}
        wanted = {"taskPushNotificationConfig": push}
        async with served_a2a(agent_of(model, sqlite_memory)) as http:
            for body in (
                rpc("SendMessage", message=message(), configuration=wanted),
                rpc("SendStreamingMessage", message=message(), configuration=wanted),
                rpc("CreateTaskPushNotificationConfig", **push),
                rpc("GetTaskPushNotificationConfig", taskId="x", id="y"),
                rpc("ListTaskPushNotificationConfigs", taskId="x"),
                rpc("DeleteTaskPushNotificationConfig", taskId="x", id="y"),
            ):
                told = await http.post("/a2a", json=body, headers=V1)
                assert told.json()["error"]["code"] == -32003, body
            for verb in ("GET", "POST"):
                path = "/a2a/tasks/x/pushNotificationConfigs"
                json_body = push if verb == "POST" else None
                told = await http.request(verb, path, json=json_body, headers=V1)
                assert reason(told) == "PUSH_NOTIFICATION_NOT_SUPPORTED"
            card = await http.post("/a2a", json=rpc("GetExtendedAgentCard"), headers=V1)
            assert card.json()["error"]["code"] == -32004
        assert not model.shown


class TestTheGate:
    """Stands in front of these paths too."""

    @pytest.mark.guarantee("G83")
    async def test_refuses_what_is_too_large_of_another_type_or_for_another_host(
        self, sqlite_memory: SQLMemory
    ) -> None:
        options: dict[str, Any] = {"limits": Limits(body_bytes=1000), "hosts": ["127.0.0.1"]}
        model = ScriptedModel("hello")
        async with served_a2a(agent_of(model, sqlite_memory), **options) as http:
            for path, good in (
                ("/a2a", rpc("SendMessage", message=message())),
                ("/a2a/message:send", {"message": message()}),
            ):
                large = good | {"metadata": {"a": "x" * 1000}}
                assert (await http.post(path, json=large, headers=V1)).status_code == 413
                for media_type in ("text/plain", "application/x-www-form-urlencoded"):
                    headers = V1 | {"content-type": media_type}
                    content = json.dumps(good).encode()
                    told = await http.post(path, content=content, headers=headers)
                    assert told.status_code == 415
                told = await http.post(path, json=good, headers=V1 | {"host": "evil.example"})
                assert (told.status_code, told.json()["code"]) == (421, "unknown_host")
            headers = V1 | {"content-type": "application/a2a+json"}
            told = await http.post(path, content=json.dumps(good).encode(), headers=headers)
            assert told.status_code == 200
        assert len(model.shown) == 1

    @pytest.mark.guarantee("G83")
    async def test_limits_the_tasks_at_work(self, sqlite_memory: SQLMemory) -> None:
        gate = Gate()
        agent = agent_of(ScriptedModel(gate.think), sqlite_memory)
        async with (
            served_a2a(agent, limits=Limits(concurrency=1)) as http,
            of_server(http.base_url) as other,
        ):
            begun = await other.say("x", "alice", at_once=True)
            body = rpc("SendMessage", message=message(contextId="bob"))
            told = (await http.post("/a2a", json=body, headers=V1)).json()["error"]
            assert "overloaded" in json.dumps(told["data"])
            asked = asyncio.create_task(other.say("x", "alice", message_id=run_id_of(begun)))
            async with asyncio.timeout(30):
                while (await http.get("/healthz")).status_code == 200:
                    refused = await http.post("/a2a", json=body, headers=V1)
                    if refused.status_code == 503:
                        break
            gate.opened.set()
            await asked


@pytest.mark.guarantee("G83")
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_a_database_that_is_gone_is_told_without_its_address(
    postgres_url: str, binding: str
) -> None:
    async with (
        behind_proxy(postgres_url) as (proxy, through),
        SQLMemory.open(through) as memory,
        served_a2a(agent_of(DemoModel(), memory)) as http,
    ):
        body: dict[str, Any] = {"message": message()}
        path = "/a2a/message:send"
        if binding == "JSONRPC":
            body, path = rpc("SendMessage", message=message()), "/a2a"
        proxy.refuse()
        proxy.cut()
        told = await http.post(path, json=body, headers=V1)
        assert told.status_code == (200 if binding == "JSONRPC" else 500)
        assert "store_unavailable" in told.text
        assert str(proxy.port) not in told.text
        assert not [word for word in TELLTALE if word in told.text]
        await proxy.accept()
        told = await http.post(path, json=body, headers=V1)
        assert "TASK_STATE_COMPLETED" in told.text


def as_call(body: bytes) -> bytes:
    """Return a request by JSON-RPC with these params, or *body* itself where that is no object."""
    try:
        params = json.loads(body)
        return json.dumps(rpc("SendMessage") | {"params": params}).encode()
    except (ValueError, RecursionError):
        return body


def reason(told: httpx.Response) -> str:
    found: str = told.json()["error"]["details"][0]["reason"]
    return found


def run_id_of(task: Any) -> str:
    found: str = task.history[0].message_id
    return found
