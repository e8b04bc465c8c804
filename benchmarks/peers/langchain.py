"""LangChain's histories, and RunnableWithMessageHistory, which is how they are run with a model."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from uuid import NAMESPACE_URL, uuid5

from langchain_community.chat_message_histories import SQLChatMessageHistory
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_postgres import PostgresChatMessageHistory
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import create_engine

from benchmarks.conversation import Line, reply_to
from benchmarks.driver import MOST_CONNECTIONS
from benchmarks.durability import POSTGRES_QUESTIONS, PoolWitness, named, together
from benchmarks.peers.engines import engine_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from benchmarks.driver import Place

_TABLE = "chat_history"
_ROLES = {"human": "user", "ai": "assistant"}


def _messages(lines: Sequence[Line]) -> list[BaseMessage]:
    return [(HumanMessage if role == "user" else AIMessage)(text) for role, text in lines]


def _lines(messages: Sequence[BaseMessage]) -> list[Line]:
    return [Line(_ROLES[m.type], m.text) for m in messages]


class Postgres:
    """langchain-postgres: a history is made for each call on a connection of a psycopg pool."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """Ten connections."""
        async with AsyncConnectionPool(
            place.address, min_size=MOST_CONNECTIONS, max_size=MOST_CONNECTIONS
        ) as pool:
            async with pool.connection() as connection:
                await PostgresChatMessageHistory.acreate_tables(connection, _TABLE)
            yield cls(pool)

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One aadd_messages."""
        async with self.history(user) as history:
            await history.aadd_messages(_messages(lines))

    async def read(self, user: str, limit: int) -> list[Line]:
        """One aget_messages; a history can only be read whole."""
        async with self.history(user) as history:
            return _lines((await history.aget_messages())[-limit:])

    async def durability(self) -> dict[str, str]:
        """A connection of the pool is asked."""
        async with self._pool.connection() as connection:
            return together(
                [
                    named(question, (await (await connection.execute(question)).fetchone())[0])
                    for question in POSTGRES_QUESTIONS
                ]
            )

    @asynccontextmanager
    async def history(self, user: str) -> AsyncIterator[PostgresChatMessageHistory]:
        """Yield the user's history; its id has to be a UUID."""
        async with self._pool.connection() as connection:
            yield PostgresChatMessageHistory(
                _TABLE, str(uuid5(NAMESPACE_URL, user)), async_connection=connection
            )


class _SQL:
    """langchain-community: a history for each user, kept, for making one makes a table class."""

    def __init__(self, connection: Any, witness: PoolWitness) -> None:
        self._connection = connection
        self._witness = witness
        self._kept: dict[str, SQLChatMessageHistory] = {}

    def history(self, user: str) -> SQLChatMessageHistory:
        """Return the user's history."""
        if user not in self._kept:
            self._kept[user] = SQLChatMessageHistory(user, connection=self._connection)
        return self._kept[user]

    async def durability(self) -> dict[str, str]:
        """What the engine's connections told."""
        return self._witness.told


class SQL(_SQL):
    """The asynchronous methods."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """One engine; a first history makes the table."""
        async with engine_of(place) as (engine, witness):
            driver = cls(engine, witness)
            await driver.history("first").aget_messages()
            yield driver

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One aadd_messages."""
        await self.history(user).aadd_messages(_messages(lines))

    async def read(self, user: str, limit: int) -> list[Line]:
        """One aget_messages; a history can only be read whole."""
        return _lines((await self.history(user).aget_messages())[-limit:])


class BlockingSQL(_SQL):
    """The synchronous methods, which block the event loop."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """One engine."""
        witness = PoolWitness(place.database)
        engine = create_engine(f"sqlite:///{place.address}")
        try:
            yield cls(engine, witness)
        finally:
            engine.dispose()

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One add_messages."""
        self.history(user).add_messages(_messages(lines))

    async def read(self, user: str, limit: int) -> list[Line]:
        """One messages; a history can only be read whole."""
        return _lines(self.history(user).messages[-limit:])


class _InstantModel(BaseChatModel):
    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        message = AIMessage(reply_to(messages[-1].text))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return self._generate(messages)


class _Pooled(BaseChatMessageHistory):
    """A user's history in PostgreSQL that takes a connection of the pool for each call."""

    def __init__(self, driver: Postgres, user: str) -> None:
        self._driver = driver
        self._user = user

    async def aget_messages(self) -> list[BaseMessage]:
        async with self._driver.history(self._user) as history:
            return await history.aget_messages()

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        async with self._driver.history(self._user) as history:
            await history.aadd_messages(messages)

    def clear(self) -> None:
        raise NotImplementedError


class _Runnable:
    """RunnableWithMessageHistory around the model; it is shown the whole history."""

    def __init__(self, driver: Any, history: Callable[[str], BaseChatMessageHistory]) -> None:
        self._driver = driver
        self._history = history
        self._chain = RunnableWithMessageHistory(_InstantModel(), history)

    async def run(self, user: str, text: str) -> str:
        """One ainvoke."""
        config = {"configurable": {"session_id": user}}
        return (await self._chain.ainvoke([HumanMessage(text)], config=config)).text

    async def stored(self, user: str) -> list[Line]:
        """The whole history."""
        return _lines(await self._history(user).aget_messages())

    async def durability(self) -> dict[str, str]:
        """What is known of the connections."""
        return await self._driver.durability()


class PostgresRunnable(_Runnable):
    """On langchain-postgres."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """See Postgres."""
        async with Postgres.open(place) as driver:
            yield cls(driver, lambda user: _Pooled(driver, user))


class SQLRunnable(_Runnable):
    """On langchain-community."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """See SQL."""
        async with SQL.open(place) as driver:
            yield cls(driver, driver.history)
