"""agno: its asynchronous databases, and its Agent."""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from agno.agent import Agent
from agno.db.base import SessionType
from agno.db.postgres import AsyncPostgresDb
from agno.db.sqlite import AsyncSqliteDb
from agno.models.base import Model
from agno.models.message import Message
from agno.models.response import ModelResponse
from agno.run.agent import RunOutput
from agno.run.base import RunStatus
from agno.session import AgentSession

from benchmarks.conversation import Line, reply_to
from benchmarks.peers.engines import engine_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.driver import Place
    from benchmarks.durability import PoolWitness

_AGENT = "bench"
_HISTORY_RUNS = 10


@asynccontextmanager
async def _database(place: Place) -> AsyncIterator[tuple[Any, PoolWitness]]:
    logging.getLogger("agno").setLevel(logging.ERROR)
    # The driver of its documentation.
    async with engine_of(place, postgres_driver="psycopg_async") as (engine, witness):
        kind = AsyncSqliteDb if place.database == "sqlite" else AsyncPostgresDb
        yield kind(db_engine=engine), witness


class Database:
    """A session for each user and a run for each turn, as its Agent stores them."""

    def __init__(self, db: Any, witness: PoolWitness) -> None:
        self._db = db
        self._witness = witness
        self._runs: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """A first turn makes the tables."""
        async with _database(place) as (db, witness):
            driver = cls(db, witness)
            await driver.append("first", [Line("user", "Hello"), Line("assistant", "Hello")])
            yield driver

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One upsert_run for each two messages; a session's first one makes the session."""
        if user not in self._runs:
            self._runs[user] = 0
            await self._db.upsert_session(
                AgentSession(
                    session_id=user, agent_id=_AGENT, user_id=user, created_at=int(time.time())
                )
            )
        for two in (lines[n : n + 2] for n in range(0, len(lines), 2)):
            run = RunOutput(
                run_id=str(uuid4()),
                agent_id=_AGENT,
                session_id=user,
                user_id=user,
                content=two[-1].text,
                status=RunStatus.completed,
                messages=[Message(role=role, content=text) for role, text in two],
            )
            index = self._runs[user]
            self._runs[user] += 1
            await self._db.upsert_run(run, user, user_id=user, run_index=index)

    async def read(self, user: str, limit: int) -> list[Line]:
        """One get_session with as many runs as hold those messages."""
        session = await self._db.get_session(
            user, session_type=SessionType.AGENT, user_id=user, runs_limit=(limit + 1) // 2
        )
        return [Line(m.role, m.content) for m in session.get_messages(limit=limit)]

    async def durability(self) -> dict[str, str]:
        """What the engine's connections told."""
        return self._witness.told


class _InstantModel(Model):
    def __init__(self) -> None:
        super().__init__(id="instant")

    def invoke(self, *_: Any, **__: Any) -> ModelResponse:
        raise NotImplementedError

    async def ainvoke(self, messages: list[Message], *_: Any, **__: Any) -> ModelResponse:
        asked = next(m for m in reversed(messages) if m.role == "user")
        return ModelResponse(role="assistant", content=reply_to(asked.content))

    def invoke_stream(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def ainvoke_stream(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def _parse_provider_response(self, response: Any, **_: Any) -> ModelResponse:
        return response

    def _parse_provider_response_delta(self, response: Any) -> ModelResponse:
        return response


class AgentRunner:
    """Agent.arun; the model is shown the last ten runs."""

    def __init__(self, db: Any, witness: PoolWitness) -> None:
        self._db = db
        self._witness = witness
        self._agent = Agent(
            id=_AGENT,
            model=_InstantModel(),
            db=db,
            add_history_to_context=True,
            num_history_runs=_HISTORY_RUNS,
            telemetry=False,
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """A first run makes the tables."""
        async with _database(place) as (db, witness):
            runner = cls(db, witness)
            await runner.run("first", "first asks, turn 0: hello")
            yield runner

    async def run(self, user: str, text: str) -> str:
        """One run."""
        return (await self._agent.arun(text, user_id=user, session_id=user)).content

    async def stored(self, user: str) -> list[Line]:
        """All messages of the session but instructions."""
        session = await self._db.get_session(user, session_type=SessionType.AGENT, user_id=user)
        return [Line(m.role, m.content) for m in session.get_messages(skip_roles=["system"])]

    async def durability(self) -> dict[str, str]:
        """What the engine's connections told."""
        return self._witness.told
