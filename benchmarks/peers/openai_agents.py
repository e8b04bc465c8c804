"""openai-agents: its sessions, and its Runner with a session."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from agents import Agent, Model, ModelResponse, Runner, SQLiteSession, Usage, set_tracing_disabled
from agents.extensions.memory import AsyncSQLiteSession, SQLAlchemySession
from agents.memory import SessionSettings
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from benchmarks.conversation import Line, reply_to
from benchmarks.durability import of_new_sqlite_connection
from benchmarks.peers.engines import engine_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from agents import Session

    from benchmarks.driver import Place

_HISTORY = 20


class _Sessions:
    """A session for each user, kept as long as the process, as one that serves users would."""

    def __init__(self, make: Callable[[str], Session], durability: Callable[[], dict]) -> None:
        self._make = make
        self._durability = durability
        self._kept: dict[str, Session] = {}

    def session(self, user: str) -> Session:
        """Return the user's session."""
        if user not in self._kept:
            self._kept[user] = self._make(user)
        return self._kept[user]

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One add_items."""
        await self.session(user).add_items([{"role": r, "content": t} for r, t in lines])

    async def read(self, user: str, limit: int) -> list[Line]:
        """One get_items."""
        items = await self.session(user).get_items(limit)
        return [Line(item["role"], item["content"]) for item in items]

    async def durability(self) -> dict[str, str]:
        """What is known of the connections."""
        return self._durability()


class SQLAlchemy(_Sessions):
    """SQLAlchemySession on one engine for all users."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """Make the tables by a first session."""
        async with engine_of(place) as (engine, witness):
            await SQLAlchemySession("first", engine=engine, create_tables=True).get_items(1)
            yield cls(lambda user: SQLAlchemySession(user, engine=engine), lambda: witness.told)


class SQLite(_Sessions):
    """SQLiteSession, which works in threads."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """Each session opens the file by itself."""
        path = place.address
        sessions = cls(
            lambda user: SQLiteSession(user, path), lambda: of_new_sqlite_connection(path)
        )
        yield sessions
        for session in sessions._kept.values():
            session.close()


class AsyncSQLite(_Sessions):
    """AsyncSQLiteSession, through aiosqlite."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """Each session opens the file by itself."""
        path = place.address
        sessions = cls(
            lambda user: AsyncSQLiteSession(user, path), lambda: of_new_sqlite_connection(path)
        )
        yield sessions
        for session in sessions._kept.values():
            await session.close()


class _InstantModel(Model):
    async def get_response(self, *_: Any, **called: Any) -> Any:
        asked = called["input"]
        text = reply_to(asked if isinstance(asked, str) else asked[-1]["content"])
        message = ResponseOutputMessage(
            id="message",
            type="message",
            role="assistant",
            status="completed",
            content=[ResponseOutputText(type="output_text", text=text, annotations=[])],
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def _line(item: dict[str, Any]) -> Line:
    content = item["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return Line(item["role"], text)


class _RunnerOnSessions:
    """Runner.run with the user's session; the model is shown the last twenty items."""

    def __init__(self, sessions: _Sessions) -> None:
        set_tracing_disabled(disabled=True)
        self._sessions = sessions
        self._agent = Agent(name="bench", model=_InstantModel())

    async def run(self, user: str, text: str) -> str:
        """One run."""
        session = self._sessions.session(user)
        session.session_settings = SessionSettings(limit=_HISTORY)
        return (await Runner.run(self._agent, text, session=session)).final_output

    async def stored(self, user: str) -> list[Line]:
        """All items."""
        session = self._sessions.session(user)
        session.session_settings = SessionSettings()
        return [_line(item) for item in await session.get_items()]

    async def durability(self) -> dict[str, str]:
        """What is known of the connections."""
        return await self._sessions.durability()


class SQLAlchemyRunner(_RunnerOnSessions):
    """On SQLAlchemySession."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """See SQLAlchemy."""
        async with SQLAlchemy.open(place) as sessions:
            yield cls(sessions)


class SQLiteRunner(_RunnerOnSessions):
    """On SQLiteSession."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """See SQLite."""
        async with SQLite.open(place) as sessions:
            yield cls(sessions)
