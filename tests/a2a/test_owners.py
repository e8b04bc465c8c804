"""Whose tasks are whose, tried as an attacker would."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError

from agno_sql.server import ApiKeyAuth
from tests.a2a.clients import (
    AUTH,
    V1,
    Other,
    answer,
    as_user,
    bearer,
    message,
    of_server,
    rpc,
    served_a2a,
    talking,
)
from tests.agent.models import ScriptedModel, agent_of, contents

if TYPE_CHECKING:
    from agno_sql.memory.sql import SQLMemory

SAID = ScriptedModel(then=lambda shown: f"{len(shown)} messages, the first is {shown[0].content}")


@pytest.mark.guarantee("G77")
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_two_users_of_one_context_see_nothing_of_each_other(
    memory: SQLMemory, binding: str
) -> None:
    agent = agent_of(SAID, memory)
    async with (
        served_a2a(agent, auth=AUTH) as http,
        of_server(http.base_url, binding, as_user("alice"), streams=True) as alice,
        of_server(http.base_url, binding, as_user("bob"), streams=True) as bob,
    ):
        hers = await alice.say("of alice", "shared", message_id="m")
        his = await bob.say("of bob", "shared", message_id="m")
        assert hers.id == his.id, "the same context and messageId"
        assert answer(hers) == "1 messages, the first is of alice"
        assert answer(his) == "1 messages, the first is of bob"
        assert answer(await alice.get(hers.id)) == answer(hers)
        assert answer(await bob.get(his.id)) == answer(his)
        only_hers = await alice.say("more", "shared")
        for ask in (bob.get, bob.cancel, bob.follow):
            with pytest.raises(TaskNotFoundError):
                await ask(only_hers.id)
        with pytest.raises(TaskNotFoundError):
            await bob.say("x", "shared", task_id=only_hers.id)
        for other, count in ((alice, 2), (bob, 1)):
            for context in ("", "shared"):
                listed = await other.list(context_id=context)
                assert (len(listed.tasks), listed.total_size) == (count, count)
    assert contents(await memory.get_messages("bob", session_id="shared")) == [
        "of bob",
        answer(his),
    ]


@pytest.mark.guarantee("G77")
async def test_anothers_task_looks_exactly_like_a_missing_one(sqlite_memory: SQLMemory) -> None:
    async with served_a2a(agent_of(SAID, sqlite_memory), auth=AUTH) as http:
        async with of_server(http.base_url, headers=as_user("alice")) as alice:
            task_id = (await alice.say("x", "work")).id
        headers = as_user("bob") | V1
        missing = task_id_of("work", "none")
        for method in ("GetTask", "CancelTask", "SubscribeToTask"):
            told = [
                await http.post("/a2a", json=rpc(method, id=one), headers=headers)
                for one in (task_id, missing)
            ]
            assert told[0].json()["error"]["code"] == -32001
            assert told[0].content == told[1].content
        for verb, path in (("GET", ""), ("POST", ":cancel"), ("GET", ":subscribe")):
            told = [
                await http.request(verb, f"/a2a/tasks/{one}{path}", headers=headers)
                for one in (task_id, missing)
            ]
            assert told[0].status_code == 404
            assert told[0].content == told[1].content


@pytest.mark.guarantee("G77")
async def test_a_forged_task_id_finds_nothing(sqlite_memory: SQLMemory) -> None:
    async with talking(agent_of(SAID, sqlite_memory), streams=True) as other:
        good = (await other.say("x", "alice", message_id="m")).id
        assert good == task_id_of("alice", "m")
        for bad in (
            good + "=",
            good + "A",
            good[:-1],
            good.replace("Y", "y", 1),
            f"{good}\n",
            f" {good}",
            good.lower(),
            "alice",
            "é",
            "\ud7ff",
            "A" * 100_000,
            "=" * 5,
            "../../etc/passwd",
            "' OR 1=1 --",
            task_id_of("alice", ""),
            task_id_of("", "m"),
            task_id_of("", ""),
            task_id_of("alice\0", "m"),
            task_id_of("alice", "m\0"),
            task_id_of("alice\nm", "m"),
            task_id_of("a" * 256, "m"),
            task_id_of("alice", "m" * 129),
            base64.urlsafe_b64encode(b"\xff\xfe\nm").decode(),
            base64.urlsafe_b64encode(b"alice").decode().rstrip("="),
        ):
            for ask in (other.get, other.cancel, other.follow):
                with pytest.raises(TaskNotFoundError):
                    await ask(bad)
        assert (await other.get(good)).id == good


@pytest.mark.guarantee("G84")
async def test_tasks_are_listed_in_pages_the_latest_change_first(memory: SQLMemory) -> None:
    def reply(shown: Any) -> str | BaseException:
        return ValueError("no") if shown[-1].content == "fail" else "hello"

    agent = agent_of(ScriptedModel(then=reply), memory)
    async with (
        served_a2a(agent, auth=AUTH) as http,
        of_server(http.base_url, headers=as_user("alice")) as alice,
        of_server(http.base_url, "HTTP+JSON", headers=as_user("alice")) as rest,
    ):
        made = [(await alice.say("fail" if n % 3 == 0 else "x", f"c-{n % 2}")).id for n in range(7)]
        for other in (alice, rest):
            assert await pages(other, page_size=3) == [made[6:3:-1], made[3:0:-1], made[:1]]
            assert await pages(other) == [made[::-1]]
            assert await pages(other, page_size=7) == [made[::-1]]
            assert await pages(other, context_id="c-1") == [made[5::-2]]
            failed = await pages(other, status="TASK_STATE_FAILED", page_size=2)
            assert failed == [[made[6], made[3]], [made[0]]]
            assert await pages(other, status="TASK_STATE_WORKING") == [[]]
            assert await pages(other, status="TASK_STATE_SUBMITTED") == [[]]
            since = (await other.get(made[4])).status.timestamp
            assert await pages(other, status_timestamp_after=since) == [made[6:3:-1]]
            whole = await other.list(include_artifacts=True, history_length=1, page_size=1)
            assert whole.tasks[0] == await other.get(made[6])
            (bare,) = (await other.list(page_size=1)).tasks
            assert not bare.artifacts
            assert not bare.history
            for bad in ({"page_size": 0}, {"page_size": 101}, {"history_length": -1}):
                with pytest.raises(InvalidParamsError):
                    await other.list(**bad)
            for token in ("x", "e30=", "W10=", "WzEsMiwzXQ==", "é", "A" * 9000):
                with pytest.raises(InvalidParamsError, match="cursor"):
                    await other.list(page_token=token)


async def test_without_authentication_tasks_are_listed_by_context_alone(
    sqlite_memory: SQLMemory,
) -> None:
    async with talking(agent_of(SAID, sqlite_memory)) as other:
        one = await other.say("x", "alice")
        await other.say("x", "bob")
        assert [task.id for task in (await other.list(context_id="alice")).tasks] == [one.id]
        with pytest.raises(InvalidParamsError, match="contextId"):
            await other.list()


class TestACallerWithoutAValidToken:
    """Gets nothing but the card."""

    @pytest.mark.guarantee("G77")
    @pytest.mark.parametrize("headers", [{}, bearer("x"), {"Authorization": "Basic YTpi"}])
    async def test_is_refused_everywhere(
        self, sqlite_memory: SQLMemory, headers: dict[str, str]
    ) -> None:
        model = ScriptedModel()
        async with served_a2a(agent_of(model, sqlite_memory), auth=AUTH) as http:
            for verb, path, body in requests():
                told = await http.request(verb, path, json=body, headers=headers | V1)
                assert told.status_code == 401, path
                assert told.headers["www-authenticate"] == "Bearer"
            assert (await http.get("/.well-known/agent-card.json")).status_code == 200
        assert not model.shown

    @pytest.mark.guarantee("G77")
    async def test_or_with_one_of_another_user_than_it_names(
        self, sqlite_memory: SQLMemory
    ) -> None:
        async with served_a2a(agent_of(ScriptedModel(), sqlite_memory), auth=AUTH) as http:
            headers = as_user("alice") | V1 | {"Agno-User-Id": "bob"}
            for verb, path, body in requests():
                told = await http.request(verb, path, json=body, headers=headers)
                assert told.status_code == 403, path


class TestAnApiKey:
    """Acts for the user that a header names, and for nobody without it."""

    @pytest.mark.guarantee("G77")
    @pytest.mark.parametrize("user", ["alice", "ü/%?👋 x", "50%"])
    async def test_acts_for_the_user_that_is_named(self, memory: SQLMemory, user: str) -> None:
        _, key = await memory.api_keys.create("shop")
        auth = [ApiKeyAuth(memory.api_keys)]
        headers = bearer(key) | {"Agno-User-Id": quote(user, safe="")}
        async with (
            served_a2a(agent_of(SAID, memory), auth=auth) as http,
            of_server(http.base_url, headers=headers) as other,
            of_server(http.base_url, headers=bearer(key) | {"Agno-User-Id": "eve"}) as eve,
        ):
            task = await other.say("x", "shared")
            with pytest.raises(TaskNotFoundError):
                await eve.get(task.id)
            assert not (await eve.list()).tasks
            assert [one.id for one in (await other.list()).tasks] == [task.id]
        assert await memory.size(user, session_id="shared") == 2
        assert await memory.size("shared") == 0

    @pytest.mark.guarantee("G77")
    async def test_is_refused_unless_one_good_user_is_named(self, sqlite_memory: SQLMemory) -> None:
        _, key = await sqlite_memory.api_keys.create("shop")
        auth = [ApiKeyAuth(sqlite_memory.api_keys)]
        async with served_a2a(agent_of(ScriptedModel(), sqlite_memory), auth=auth) as http:
            for users in (
                [],
                [b""],
                [b"a", b"b"],
                ["ü".encode()],
                [b"%ff"],
                [b"a%00"],
                [b"a%0Ab"],
                [b"x" * 256],
            ):
                headers = [(b"authorization", f"Bearer {key}".encode()), (b"a2a-version", b"1.0")]
                headers += [(b"agno-user-id", user) for user in users]
                for verb, path, body in requests():
                    told = await http.request(verb, path, json=body, headers=headers)
                    assert told.status_code == 422, users
                    assert told.json()["code"] == "invalid_user_id"

    async def test_is_not_needed_for_the_header_without_authentication(
        self, memory: SQLMemory
    ) -> None:
        async with (
            served_a2a(agent_of(SAID, memory)) as http,
            of_server(http.base_url, headers={"Agno-User-Id": "alice"}) as other,
        ):
            await other.say("x", "work")
            assert len((await other.list()).tasks) == 1
        assert await memory.size("alice", session_id="work") == 2


def task_id_of(context_id: str, run_id: str) -> str:
    """Make a task id by hand, as an attacker can."""
    return base64.urlsafe_b64encode(f"{context_id}\n{run_id}".encode()).decode().rstrip("=")


def requests() -> list[tuple[str, str, Any]]:
    """Return a request of each kind."""
    task = f"/a2a/tasks/{task_id_of('alice', 'm')}"
    return [
        ("POST", "/a2a", rpc("SendMessage", message=message())),
        ("POST", "/a2a", rpc("SendStreamingMessage", message=message())),
        ("POST", "/a2a", rpc("ListTasks")),
        ("POST", "/a2a", rpc("message/send")),
        ("POST", "/a2a/message:send", {"message": message()}),
        ("POST", "/a2a/message:stream", {"message": message()}),
        ("GET", "/a2a/tasks", None),
        ("GET", task, None),
        ("POST", f"{task}:cancel", {}),
        ("GET", f"{task}:subscribe", None),
        ("POST", f"{task}:subscribe", {}),
        ("GET", f"{task}/pushNotificationConfigs", None),
        ("GET", "/a2a/extendedAgentCard", None),
    ]


async def pages(other: Other, **wanted: Any) -> list[list[str]]:
    """Return the ids of all tasks that are *wanted*, page by page."""
    found: list[list[str]] = []
    token = ""
    while True:
        page = await other.list(page_token=token, **wanted)
        found.append([task.id for task in page.tasks])
        token = page.next_page_token
        if not token:
            assert page.total_size == sum(map(len, found))
            return found
