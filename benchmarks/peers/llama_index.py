"""llama-index: its chat stores, and its chat engine with a memory on them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CustomLLM,
    LLMMetadata,
)
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore
from llama_index.storage.chat_store.postgres import PostgresChatStore
from llama_index.storage.chat_store.sqlite import SQLiteChatStore
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from benchmarks.conversation import Line, reply_to
from benchmarks.driver import MOST_CONNECTIONS
from benchmarks.peers.engines import engine_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.driver import Place
    from benchmarks.durability import PoolWitness

_TABLE = "chat_store"


def _messages(lines: Sequence[Line]) -> list[ChatMessage]:
    return [ChatMessage(role=role, content=text) for role, text in lines]


def _lines(messages: Sequence[ChatMessage]) -> list[Line]:
    return [Line(m.role.value, m.content) for m in messages]


class ChatStore:
    """PostgresChatStore or SQLiteChatStore, with the engine's ten connections."""

    def __init__(self, store: Any, witness: PoolWitness) -> None:
        self.store = store
        self._witness = witness
        self._known: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """It makes its table with a synchronous engine."""
        async with cls.sharing(place, blocking=0) as driver:
            yield driver

    @classmethod
    @asynccontextmanager
    async def sharing(cls, place: Place, *, blocking: int) -> AsyncIterator[Self]:
        """Leave *blocking* of the ten connections to the synchronous engine."""
        is_sqlite = place.database == "sqlite"
        url = place.sqlalchemy_url.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")
        async with engine_of(place, connections=MOST_CONNECTIONS - blocking) as (engine, witness):
            first = create_engine(url, pool_size=max(1, blocking), max_overflow=0)
            kind = SQLiteChatStore if is_sqlite else PostgresChatStore
            store = kind(
                session=sessionmaker(first),
                async_session=async_sessionmaker(engine),
                table_name=_TABLE,
            )
            first.dispose()
            yield cls(store, witness)
            first.dispose()

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One async_add_message a message; a conversation's first ones may be set together."""
        if len(lines) > 2 and user not in self._known:
            await self.store.aset_messages(user, _messages(lines))
        else:
            for message in _messages(lines):
                await self.store.async_add_message(user, message)
        self._known.add(user)

    async def read(self, user: str, limit: int) -> list[Line]:
        """One aget_messages; a conversation can only be read whole."""
        return _lines((await self.store.aget_messages(user))[-limit:])

    async def durability(self) -> dict[str, str]:
        """What the engines' connections told."""
        return self._witness.told


class SQLAlchemy:
    """SQLAlchemyChatStore, the core's own, with the engine's ten connections."""

    def __init__(self, store: SQLAlchemyChatStore, witness: PoolWitness) -> None:
        self.store = store
        self._witness = witness

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """A first read makes the table."""
        async with engine_of(place) as (engine, witness):
            store = SQLAlchemyChatStore(_TABLE, async_engine=engine)
            await store.get_messages("first")
            yield cls(store, witness)

    async def append(self, user: str, lines: Sequence[Line]) -> None:
        """One add_messages."""
        await self.store.add_messages(user, _messages(lines))

    async def read(self, user: str, limit: int) -> list[Line]:
        """One get_messages of all; its limit is that of the oldest ones."""
        return _lines((await self.store.get_messages(user))[-limit:])

    async def durability(self) -> dict[str, str]:
        """What the engine's connections told."""
        return self._witness.told


class _InstantModel(CustomLLM):
    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="instant", is_chat_model=True)

    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        text = reply_to(messages[-1].content)
        return ChatResponse(message=ChatMessage(role="assistant", content=text))

    def complete(self, *_: Any, **__: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


class _ChatEngine:
    """SimpleChatEngine.achat; the memory shows the model as much as its token limit allows."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._model = _InstantModel()
        self._kept: dict[str, SimpleChatEngine] = {}

    async def run(self, user: str, text: str) -> str:
        """One achat."""
        if user not in self._kept:
            self._kept[user] = SimpleChatEngine.from_defaults(
                llm=self._model, memory=self._memory(user)
            )
        return (await self._kept[user].achat(text)).response

    async def stored(self, user: str) -> list[Line]:
        """All messages."""
        return await self._driver.read(user, 10_000)

    async def durability(self) -> dict[str, str]:
        """What is known of the connections."""
        return await self._driver.durability()

    def _memory(self, user: str) -> Any:
        raise NotImplementedError


class StoreEngine(_ChatEngine):
    """ChatMemoryBuffer on the integration's store."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """The memory reads with the synchronous engine."""
        async with ChatStore.sharing(place, blocking=5) as driver:
            yield cls(driver)

    def _memory(self, user: str) -> ChatMemoryBuffer:
        return ChatMemoryBuffer.from_defaults(
            token_limit=30_000, chat_store=self._driver.store, chat_store_key=user
        )


class SQLAlchemyEngine(_ChatEngine):
    """Memory on the core's store."""

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place) -> AsyncIterator[Self]:
        """See SQLAlchemy."""
        async with SQLAlchemy.open(place) as driver:
            yield cls(driver)

    def _memory(self, user: str) -> Memory:
        return Memory.from_defaults(session_id=user, chat_store=self._driver.store)
