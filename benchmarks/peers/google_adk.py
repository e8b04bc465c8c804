"""google-adk: its session services, and its Runner."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.events.event import Event
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai.types import Content, Part

from benchmarks.conversation import Line, reply_to
from benchmarks.durability import of_new_sqlite_connection
from benchmarks.peers.engines import engine_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from google.adk.sessions import BaseSessionService, Session

    from benchmarks.driver import Place

_APP = "bench"
_HISTORY = 20


def _line(event: Event) -> Line:
    text = "".join(part.text or "" for part in event.content.parts)
    return Line("user" if event.author == "user" else "assistant", text)


class _Service:
    """A session for each user, whose object is kept: appends need the one that was read last."""

    def __init__(self, service: BaseSessionService, durability: Callable[[], dict]) -> None:
        self.service = service
        self._durability = durability
        self._kept: dict[str, Session] = {}

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One append_event a message; there is no other way."""
        if user not in self._kept:
            self._kept[user] = await self.service.create_session(
                app_name=_APP, user_id=user, session_id=user
            )
        for role, text in lines:
            content = Content(role="user" if role == "user" else "model", parts=[Part(text=text)])
            author = "user" if role == "user" else _APP
            await self.service.append_event(
                self._kept[user], Event(author=author, invocation_id="turn", content=content)
            )

    async def read(self, user: str, limit: int) -> list[Line]:
        """One get_session with that many recent events."""
        session = await self.service.get_session(
            app_name=_APP,
            user_id=user,
            session_id=user,
            config=GetSessionConfig(num_recent_events=limit),
        )
        return [_line(event) for event in session.events]

    async def durability(self) -> dict[str, str]:
        """What is known of the connections."""
        return self._durability()


class Database(_Service):
    """DatabaseSessionService on an engine with ten connections."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """Make the tables."""
        async with engine_of(place) as (engine, witness):
            service = DatabaseSessionService(db_engine=engine)
            await service.prepare_tables()
            yield cls(service, lambda: witness.told)


class SQLite(_Service):
    """SqliteSessionService, which opens a connection for each call."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """It makes the tables by itself."""
        yield cls(
            SqliteSessionService(place.address), lambda: of_new_sqlite_connection(place.address)
        )


class _InstantModel(BaseLlm):
    model: str = "instant"

    async def generate_content_async(
        self,
        llm_request: Any,
        stream: bool = False,  # noqa: ARG002  (the base class's)
    ) -> AsyncIterator[LlmResponse]:
        text = reply_to(llm_request.contents[-1].parts[-1].text)
        yield LlmResponse(content=Content(role="model", parts=[Part(text=text)]))


class _RunnerOnService:
    """Runner.run_async; it reads the last twenty events."""

    def __init__(self, driver: _Service) -> None:
        self._driver = driver
        self._known: set[str] = set()
        self._config = RunConfig(get_session_config=GetSessionConfig(num_recent_events=_HISTORY))
        self._runner = Runner(
            app_name=_APP,
            agent=LlmAgent(name=_APP, model=_InstantModel()),
            session_service=driver.service,
        )

    async def run(self, user: str, text: str) -> str:
        """One run."""
        if user not in self._known:
            await self._driver.service.create_session(app_name=_APP, user_id=user, session_id=user)
            self._known.add(user)
        message = Content(role="user", parts=[Part(text=text)])
        told = ""
        async for event in self._runner.run_async(
            user_id=user, session_id=user, new_message=message, run_config=self._config
        ):
            if event.is_final_response():
                told = _line(event).text
        return told

    async def stored(self, user: str) -> list[Line]:
        """All events that are messages."""
        return await self._driver.read(user, 10_000)

    async def durability(self) -> dict[str, str]:
        """What is known of the connections."""
        return await self._driver.durability()


class DatabaseRunner(_RunnerOnService):
    """On DatabaseSessionService."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """See Database."""
        async with Database.open(place) as driver:
            yield cls(driver)


class SQLiteRunner(_RunnerOnService):
    """On SqliteSessionService."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """See SQLite."""
        async with SQLite.open(place) as driver:
            yield cls(driver)
