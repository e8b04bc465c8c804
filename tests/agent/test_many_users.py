"""One agent, 1,000 users at once, a real model server and a real database: no mix-up."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url

from agno_sql.agent.agent import Agent
from agno_sql.memory.sql import SQLMemory
from agno_sql.models.openai_chat import OpenAIChat
from agno_sql.testing.openai_server import Reply, ScriptedOpenAI

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agno_sql.agent.context import HookInput
    from agno_sql.agent.output import RunOutput

USERS = [f"user-{n}" for n in range(1000)]
RETURNING_USERS = USERS[::10]
INSTRUCTIONS = "You are a helpful customer service agent."

SECRET = re.compile(r"my secret is ([0-9a-f]{16})")

# A row as the database has it: role and content.
Row = tuple[str, str]


def secret(user: str) -> str:
    """Return what nobody but *user* may ever be told."""
    return sha256(f"secret of {user}".encode()).hexdigest()[:16]


def answer_to(conversation: Iterable[Row]) -> str:
    """Return an answer that only this whole conversation gives, and that quotes all of it."""
    told = [f"{role}={content}" for role, content in conversation]
    digest = sha256("\n".join(told).encode()).hexdigest()
    return f"{len(told)} messages, {digest}; the last one was: {told[-1]}"


def expected_rows(user: str, turns: int) -> list[Row]:
    """Return what must be stored for *user* after so many turns, and nothing else."""
    rows: list[Row] = []
    for turn in range(turns):
        rows.append(("user", question(user, turn)))
        rows.append(("assistant", answer_to([("system", INSTRUCTIONS), *rows])))
    return rows


def question(user: str, turn: int) -> str:
    return f"turn {turn}: I am {user} and my secret is {secret(user)}"


def stored_rows(url: str) -> dict[str, list[Row]]:
    """Return every row of the database, read behind the library's back."""
    query = "SELECT user_id, session_id, seq, role, content FROM messages ORDER BY user_id, seq"
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(parsed.database))) as sqlite:
            found: list[Any] = sqlite.execute(query).fetchall()
    else:
        plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain) as postgres:
            found = postgres.execute(query).fetchall()
    for user_id, session_id, seq, role, content in found:
        rows[user_id].append((role, content))
        assert (session_id, seq) == ("default", len(rows[user_id]))
    return rows


class Meeting:
    """A post hook that lets nobody's run end before everybody's has got its answer."""

    def __init__(self, parties: int) -> None:
        self._missing = parties
        self._all_here = asyncio.Event()

    async def __call__(self, given: HookInput) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._all_here.set()
        await self._all_here.wait()


def reply(body: dict[str, Any]) -> Reply:
    """Answer from nothing but what the request shows."""
    return Reply(text=answer_to((m["role"], m["content"]) for m in body["messages"]))


async def take_turn(agent: Agent, users: list[str], turn: int) -> list[RunOutput]:
    """Run *agent* for all *users* at once; each run waits for all others before it ends."""
    together = replace(agent, post_hooks=(Meeting(len(users)),))
    return await asyncio.gather(*(together.run(question(user, turn), user) for user in users))


@pytest.mark.guarantee("G20")
@pytest.mark.timeout(300)
async def test_a_thousand_users_at_once_keep_their_conversations_apart(database_url: str) -> None:
    with ScriptedOpenAI(reply) as server:
        model = OpenAIChat("m-1", base_url=server.base_url, api_key="k", max_retries=0)
        async with SQLMemory.open(database_url) as memory:
            agent = Agent(name="service", model=model, memory=memory, instructions=INSTRUCTIONS)
            first = await take_turn(agent, USERS, 0)
            second = await take_turn(agent, RETURNING_USERS, 1)
        await model.aclose()
        requests = server.requests

    for turn, users, outputs in ((0, USERS, first), (1, RETURNING_USERS, second)):
        for user, output in zip(users, outputs, strict=True):
            rows = expected_rows(user, turn + 1)
            assert (output.user_id, output.content) == (user, rows[-1][1])
            assert [(m.role, m.content) for m in output.messages] == rows[-2:]
    assert len({output.run_id for output in first + second}) == len(requests)

    stored = stored_rows(database_url)
    assert set(stored) == set(USERS)
    turns = dict.fromkeys(USERS, 1) | dict.fromkeys(RETURNING_USERS, 2)
    wrong = [user for user in USERS if stored[user] != expected_rows(user, turns[user])]
    assert wrong == [], f"{len(wrong)} users have messages that are not theirs"

    told = [set(SECRET.findall(str(request.body["messages"]))) for request in requests]
    assert sorted(told, key=str) == sorted(
        ({secret(user)} for user in USERS + RETURNING_USERS), key=str
    ), "a model was told a secret of somebody else"
