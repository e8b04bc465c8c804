"""Errors as problem details: each has its status, and none tells what it should not."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import Response

from agno_sql import errors
from agno_sql.agent.agent import Agent
from agno_sql.memory.sql import SQLMemory
from agno_sql.models.demo import DemoModel
from agno_sql.server import refusals
from agno_sql.server.problems import ANSWERS, PROBLEM_JSON, problem_response
from tests.agent.models import ScriptedModel, agent_of
from tests.support.http import served
from tests.support.tcp import behind_proxy

if TYPE_CHECKING:
    from pathlib import Path

BODY = {"user_id": "alice", "message": "x"}


def every(kind: type[errors.AgnoSQLError]) -> list[type[errors.AgnoSQLError]]:
    found = [kind]
    for one in found:
        found += one.__subclasses__()
    modules = (errors.__name__, refusals.__name__)
    return [one for one in found if one.__module__ in modules]


def made(kind: type[errors.AgnoSQLError], message: str) -> errors.AgnoSQLError:
    more: dict[type, dict[str, Any]] = {
        errors.MaxLoopsError: {"output": None},
        errors.RunFailedError: {"error_type": "X"},
        errors.MissingExtraError: {"purpose": "x"},
    }
    return kind(message, **more.get(kind, {}))


@pytest.mark.guarantee("G72")
@pytest.mark.parametrize("kind", every(errors.AgnoSQLError), ids=lambda kind: kind.__name__)
def test_what_an_error_of_ours_says_is_told_only_if_the_client_may_know(
    kind: type[errors.AgnoSQLError],
) -> None:
    response = problem_response(made(kind, "postgresql://me:secret@host SELECT"))
    assert isinstance(response, Response)
    problem = json.loads(bytes(response.body))
    assert problem["status"] == response.status_code
    assert problem["code"] == kind.code
    if response.status_code >= 500 and not issubclass(kind, refusals.RefusalError):
        assert "secret" not in bytes(response.body).decode()
    if kind.retryable:
        assert int(response.headers["retry-after"]) >= 1
    else:
        assert "retry-after" not in response.headers


def test_the_callers_mistakes_are_4xx_and_all_else_of_the_library_is_decided_in_the_table() -> None:
    for kind in every(errors.AgnoSQLError):
        nearest = next(one for one in kind.__mro__ if one in ANSWERS)
        status, _ = ANSWERS[nearest]
        if issubclass(kind, errors.InvalidInputError):
            assert status in (409, 422)
        if issubclass(kind, errors.ModelError):
            assert status in (502, 503, 504)


def test_a_pause_that_a_provider_asked_for_is_passed_on() -> None:
    error = errors.RateLimitError("slow down", retry_after=timedelta(seconds=2.2))
    assert problem_response(error).headers["retry-after"] == "3"


async def test_bad_input_names_the_field_and_echoes_nothing(sqlite_memory: SQLMemory) -> None:
    huge = "z" * 100_000
    cases: list[tuple[Any, str]] = [
        ({"message": "x"}, "invalid_user_id"),
        ({"user_id": "a", "message": ""}, "invalid_input"),
        ({"user_id": "a", "message": 5}, "invalid_input"),
        ({"user_id": "a", "message": None}, "invalid_input"),
        ({"user_id": ""} | {"message": "x"}, "invalid_user_id"),
        ({"user_id": huge, "message": "x"}, "invalid_user_id"),
        ({"user_id": "a\nb", "message": "x"}, "invalid_user_id"),
        ({"user_id": "a\x85b", "message": "x"}, "invalid_user_id"),
        (BODY | {"session_id": ""}, "invalid_session_id"),
        (BODY | {"run_id": "a b"}, "invalid_run_id"),
        (BODY | {"stream": "yes"}, "invalid_input"),
        (BODY | {huge: 1}, "invalid_input"),
        (BODY | {f"k{n}": 1 for n in range(1000)}, "invalid_input"),
        ([], "invalid_input"),
        (huge, "invalid_input"),
    ]
    async with served(agent_of(ScriptedModel(), sqlite_memory)) as client:
        for body, code in cases:
            told = await client.post("/chat", json=body)
            assert told.headers["content-type"] == PROBLEM_JSON
            assert (told.status_code, told.json()["code"]) == (422, code), told.text
            assert len(told.content) < 5000
            assert "zzzz" * 50 not in told.text


@pytest.mark.parametrize(
    "content",
    ["", "{", "\xff", '{"user_id": NaN', "[" * 50_000, '{"a": "\\ud800"', "1" * 10_000],
)
async def test_a_body_that_is_no_json_is_a_4xx_problem(
    sqlite_memory: SQLMemory, content: str
) -> None:
    async with served(agent_of(ScriptedModel(), sqlite_memory)) as client:
        told = await client.post(
            "/chat",
            content=content.encode("latin-1"),
            headers={"content-type": "application/json"},
        )
    assert told.status_code in (400, 422)
    assert told.headers["content-type"] == PROBLEM_JSON


async def test_an_unknown_path_and_method_are_problems_too(sqlite_memory: SQLMemory) -> None:
    async with served(agent_of(ScriptedModel(), sqlite_memory)) as client:
        missing = await client.get("/nothing")
        wrong = await client.put("/chat", json=BODY)
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


@pytest.mark.guarantee("G72")
async def test_a_database_that_is_gone_is_503_without_its_url(
    postgres_url: str,
) -> None:
    async with (
        behind_proxy(postgres_url) as (proxy, through),
        SQLMemory.open(through) as memory,
        served(Agent(name="a", model=DemoModel(), memory=memory)) as client,
    ):
        assert (await client.get("/readyz")).status_code == 200
        proxy.refuse()
        proxy.cut()
        for ask in (
            client.get("/readyz"),
            client.post("/chat", json=BODY),
            client.get("/sessions", params={"user_id": "alice"}),
        ):
            told = await ask
            assert (told.status_code, told.json()["code"]) == (503, "store_unavailable")
            assert told.headers["retry-after"] == "1"
            assert str(proxy.port) not in told.text
        assert (await client.get("/healthz")).status_code == 200
        await proxy.accept()
        assert (await client.post("/chat", json=BODY)).status_code == 200


async def test_a_schema_of_another_version_is_not_ready(
    sqlite_memory: SQLMemory, tmp_path: Path
) -> None:
    async with served(agent_of(ScriptedModel(), sqlite_memory)) as client:
        with sqlite3.connect(tmp_path / "agno_sql.db") as database:
            database.execute("UPDATE agno_sql_version SET version_num = '0001'")
        database.close()
        told = await client.get("/readyz")
    assert (told.status_code, told.json()["code"]) == (503, "schema_out_of_date")
    assert "agno_sql.db" not in told.text


async def test_a_row_that_cannot_be_decoded_is_500_without_what_it_holds(
    sqlite_memory: SQLMemory, tmp_path: Path
) -> None:
    agent = agent_of(ScriptedModel("hi"), sqlite_memory)
    async with served(agent) as client:
        await client.post("/chat", json=BODY)
        with sqlite3.connect(tmp_path / "agno_sql.db") as database:
            database.execute("UPDATE messages SET content = 'secret \x10zzzz'")
        database.close()
        told = await client.get("/messages", params={"user_id": "alice"})
    assert (told.status_code, told.json()["code"]) == (500, "corrupt_record")
    assert "secret" not in told.text
