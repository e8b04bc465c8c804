"""Sessions, messages and users over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from agno_sql.message import Message, ToolCall
from tests.agent.models import ScriptedModel, agent_of
from tests.support.http import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from agno_sql.memory.sql import SQLMemory


@pytest.fixture
async def client(memory: SQLMemory) -> AsyncIterator[httpx.AsyncClient]:
    async with served(agent_of(ScriptedModel(), memory)) as opened:
        yield opened


async def pages(client: httpx.AsyncClient, path: str, **params: Any) -> list[list[Any]]:
    """Return what each page of *path* lists, from the first to the last."""
    found = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        page = (await client.get(path, params=params | more)).json()
        found.append(page[path.strip("/")])
        cursor = page.get("next")
        if cursor is None:
            return found


@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_messages_come_in_pages_either_way(
    client: httpx.AsyncClient, memory: SQLMemory, order: str
) -> None:
    await memory.extend([Message.user(f"{n}") for n in range(1, 8)], "alice")
    await memory.add(Message.user("not hers"), "bob")
    found = await pages(client, "/messages", user_id="alice", limit=3, order=order)
    seqs = [[message["seq"] for message in page] for page in found]
    assert seqs == (
        [[7, 6, 5], [4, 3, 2], [1]] if order == "newest" else [[1, 2, 3], [4, 5, 6], [7]]
    )


async def test_a_page_may_end_with_any_legal_id(
    client: httpx.AsyncClient, memory: SQLMemory
) -> None:
    for session in ("\U0001f600" * 255, "\U0001f601" * 255, "\u202e" * 255):
        await memory.add(Message.user("x"), "alice", session_id=session)
    listed = await pages(client, "/sessions", user_id="alice", limit=1)
    assert [len(page) for page in listed] == [1, 1, 1]


async def test_a_message_is_told_with_all_that_it_has(
    client: httpx.AsyncClient, memory: SQLMemory
) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    call = ToolCall("c\ud800", "look", '{"a": "\ud800"}')
    await memory.extend(
        [
            Message(role="user", content="\ud800\0", name="Al\ud800", created_at=at),
            Message(role="assistant", content="", tool_calls=(call,), created_at=at),
            Message(role="tool", content="x", tool_call_id="c\ud800", created_at=at, run_id="r-1"),
        ],
        "alice",
    )
    page = (await client.get("/messages", params={"user_id": "alice", "order": "oldest"})).json()
    when = "2026-03-01T12:00:00Z"
    told = {"id": "c\ufffd", "name": "look", "arguments": '{"a": "\ufffd"}'}
    assert page["messages"] == [
        {"seq": 1, "role": "user", "content": "\ufffd\0", "name": "Al\ufffd", "created_at": when},
        {"seq": 2, "role": "assistant", "content": "", "tool_calls": [told], "created_at": when},
        {
            "seq": 3,
            "role": "tool",
            "content": "x",
            "tool_call_id": "c\ufffd",
            "created_at": when,
            "run_id": "r-1",
        },
    ]


async def test_sessions_come_in_pages_latest_activity_first(
    client: httpx.AsyncClient, memory: SQLMemory
) -> None:
    for number in range(5):
        await memory.add(Message.user("x"), "alice", session_id=f"s/{number}?&#ü")
    found = await pages(client, "/sessions", user_id="alice", limit=2)
    assert [[session["session_id"] for session in page] for page in found] == [
        ["s/4?&#ü", "s/3?&#ü"],
        ["s/2?&#ü", "s/1?&#ü"],
        ["s/0?&#ü"],
    ]
    assert found[0][0]["message_count"] == 1
    assert found[0][0]["title"] == "x"
    assert (await client.get("/sessions", params={"user_id": "nobody"})).json()["sessions"] == []


async def test_users_come_in_pages_longest_idle_first(
    client: httpx.AsyncClient, memory: SQLMemory
) -> None:
    for name in ("alice", "bob", "carol"):
        await memory.add(Message.user("x"), name)
    found = await pages(client, "/users", limit=2)
    assert [[user["user_id"] for user in page] for page in found] == [["alice", "bob"], ["carol"]]


@pytest.mark.guarantee("G68")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_session_of_another_user_looks_like_a_missing_one(
    client: httpx.AsyncClient, memory: SQLMemory, method: str
) -> None:
    await memory.add(Message.user("secret"), "alice", session_id="s-1")
    foreign = await client.request(
        method, "/messages", params={"user_id": "bob", "session_id": "s-1"}
    )
    missing = await client.request(
        method, "/messages", params={"user_id": "bob", "session_id": "s-2"}
    )
    assert (foreign.status_code, missing.status_code) == (404, 404)
    assert foreign.content == missing.content
    assert {k: v for k, v in foreign.headers.items() if k != "date"} == {
        k: v for k, v in missing.headers.items() if k != "date"
    }
    assert await memory.size("alice", session_id="s-1") == 1


async def test_clearing_empties_a_session_which_is_there_still(
    client: httpx.AsyncClient, memory: SQLMemory
) -> None:
    await memory.add(Message.user("x"), "alice")
    told = await client.delete("/messages", params={"user_id": "alice"})
    assert (told.status_code, told.content) == (204, b"")
    page = await client.get("/messages", params={"user_id": "alice"})
    assert (page.status_code, page.json()["messages"]) == (200, [])


async def test_erasing_leaves_nothing_of_a_user(
    client: httpx.AsyncClient, memory: SQLMemory
) -> None:
    await memory.add(Message.user("x"), "alice")
    await memory.add(Message.user("y"), "bob")
    told = await client.delete("/user", params={"user_id": "alice"})
    assert told.json() == {"user_id": "alice", "messages": 1}
    assert (await client.get("/messages", params={"user_id": "alice"})).status_code == 404
    assert await memory.size("bob") == 1


@pytest.mark.parametrize(
    "path, cursor",
    [
        ("/messages", "-1"),
        ("/messages", "1.5"),
        ("/messages", "²"),
        ("/messages", "9" * 40),
        ("/messages", ""),
        ("/sessions", "x"),
        ("/sessions", "W10="),
        ("/sessions", "WyIyMDI2IiwgMV0="),
        ("/sessions", "W1tbW1tb" * 200),
        ("/sessions", "ü"),
        ("/users", "bnVsbA=="),
        ("/users", "WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzIzOjAwIiwgIngiXQ=="),
    ],
)
async def test_a_cursor_of_no_page_is_422(
    client: httpx.AsyncClient, memory: SQLMemory, path: str, cursor: str
) -> None:
    await memory.add(Message.user("x"), "alice")
    params = {"user_id": "alice", "cursor": cursor}
    told = await client.get(path, params=params)
    assert (told.status_code, told.json()["code"]) == (422, "invalid_option")


SQL = ["'; DROP TABLE messages; --", "a' OR '1'='1", "%' --", '"', "\\'; SELECT pg_sleep(9)--"]


@pytest.mark.parametrize("text", SQL)
async def test_an_id_is_never_taken_for_sql(
    client: httpx.AsyncClient, memory: SQLMemory, text: str
) -> None:
    await memory.add(Message.user("kept"), "alice")
    for path in ("/sessions", "/messages", "/run"):
        params = {"user_id": text, "session_id": text, "run_id": text.replace(" ", "_")}
        told = await client.get(path, params=params)
        assert told.status_code in (200, 404)
        assert "kept" not in told.text
    assert await memory.size("alice") == 1
