"""The short way to the database: what tasks write and read at the same time goes together."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar
from weakref import WeakKeyDictionary

from agno_sql.errors import AgnoSQLError
from agno_sql.exchange import newest_exchange
from agno_sql.message import numbered
from agno_sql.store import find_together, read_together, write_postgresql, write_sqlite
from agno_sql.store.faults import DRIVER_ERRORS
from agno_sql.store.rows import row_message
from agno_sql.store.together import Together
from agno_sql.store.writes import grouped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from agno_sql.clock import Clock
    from agno_sql.message import Message
    from agno_sql.runs import RunKey
    from agno_sql.store.database import Database
    from agno_sql.store.read_together import Read
    from agno_sql.store.writes import Begin, Group, Write

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")
_T = TypeVar("_T")

_MOST_AT_ONCE: Final = 256
# Larger ones would hold up the others of their batch: they go by themselves.
_MOST_MESSAGES: Final = 100
_MOST_CHARACTERS: Final = 100_000
_MOST_ROWS: Final = 1000

# Drivers raise the last one for a number or a time that they can't take.
_REFUSED: Final = (*DRIVER_ERRORS, OverflowError)

_Rows = list[list["Sequence[Any]"]]


class _Store(Protocol):
    def __call__(
        self, driver: Any, begin: Begin, *, capacity: int | None
    ) -> Awaitable[dict[int, int]]: ...


class _Way(NamedTuple):
    """How it is done on a database, and how many batches of each kind at once.

    One after another, this process and the server would wait for each other in turn, and each
    commit for the one before. SQLite has one writer, and its threads share this interpreter.
    """

    store: _Store
    read: Callable[[Any, Sequence[Read]], Awaitable[_Rows]]
    find: Callable[[Any, Sequence[RunKey]], Awaitable[list[bool]]]
    writers: int
    readers: int


WAYS: Final = {
    "asyncpg": _Way(
        write_postgresql.store,
        read_together.read_postgresql,
        find_together.find_postgresql,
        writers=2,
        readers=2,
    ),
    "aiosqlite": _Way(
        write_sqlite.store,
        read_together.read_sqlite,
        find_together.find_sqlite,
        writers=1,
        readers=1,
    ),
}


class _Stored(NamedTuple):
    last_seq: int
    at: datetime


class _Here(NamedTuple):
    """What goes together in one event loop; a conversation is always given to the same of each."""

    writes: list[Together[Write, _Stored | None]]
    reads: list[Together[Read, list[Sequence[Any]] | None]]
    finds: Together[RunKey, bool | None]


class Batches:
    """Group commit for the writes of a database, and shared queries for its reads.

    Takes what is common and leaves the rest: ``None`` says that nothing was done, and that the
    portable way has to be taken.
    """

    def __init__(self, database: Database, *, clock: Clock, capacity: int | None) -> None:
        self._database = database
        self._clock = clock
        self._capacity = capacity
        self._way = WAYS.get(database.driver or "")
        self._here: WeakKeyDictionary[asyncio.AbstractEventLoop, _Here] = WeakKeyDictionary()

    async def write(self, write: Write) -> list[Message] | None:
        """Store *write* in a commit that it shares with others; return its messages.

        Raises:
            OutcomeUnknownError: The connection broke: it may be stored.
            StoreUnavailableError: The database stayed busy; nothing was stored.
        """
        if self._way is None or not self._fits(write):
            return None
        stored = await _for(write.key, self._together(self._way).writes).ask(write)
        return stored and numbered(write.messages, last_seq=stored.last_seq, at=stored.at)

    async def read(self, read: Read) -> list[Message] | None:
        """Return the messages of *read*, oldest first.

        Raises:
            CorruptRecordError: A row can't be decoded; names its key.
        """
        most = self._capacity if read.limit is None else read.limit
        if self._way is None or most is None or most > _MOST_ROWS:
            return None
        rows = await _for(read.key, self._together(self._way).reads).ask(read)
        picked = None if rows is None else read.picked(rows)
        return None if picked is None else [row_message(row, read.key) for row in picked]

    async def find(self, key: RunKey) -> bool | None:
        """Return whether the run is stored."""
        return await self._together(self._way).finds.ask(key) if self._way else None

    async def rest(self) -> None:
        """Return when nothing of this event loop is under way, or after some seconds."""
        if here := self._here.pop(asyncio.get_running_loop(), None):
            await asyncio.gather(
                *(together.rest() for together in here.writes),
                *(together.rest() for together in here.reads),
                here.finds.rest(),
            )

    def _together(self, way: _Way) -> _Here:
        loop = asyncio.get_running_loop()
        here = self._here.get(loop)
        if here is None:
            store, read = partial(self._store, way), partial(self._read, way.read)
            here = self._here[loop] = _Here(
                [Together(store, most=_MOST_AT_ONCE) for _ in range(way.writers)],
                [Together(read, most=_MOST_AT_ONCE) for _ in range(way.readers)],
                Together(partial(self._read, way.find), most=_MOST_AT_ONCE),
            )
        return here

    def _fits(self, write: Write) -> bool:
        size = sum(len(message.content) for message in write.messages)
        if len(write.messages) > _MOST_MESSAGES or size > _MOST_CHARACTERS:
            return False
        if self._capacity is None or not write.prunes:
            return True
        # Which call a result answers that comes by itself has to be looked for.
        return newest_exchange(write.messages) is not None

    async def _store(
        self, way: _Way, take: Callable[[], list[Write]]
    ) -> Sequence[_Stored | BaseException | None]:
        groups: list[Group] = []
        at = self._clock.now()

        def begin() -> tuple[Sequence[Group], datetime]:
            nonlocal groups, at
            at = self._clock.now()  # a lease must not run while its batch was waiting
            groups = grouped(take())
            return groups, at

        try:
            last_seqs = await self._database.direct(
                lambda driver: way.store(driver, begin, capacity=self._capacity), is_write=True
            )
        except _REFUSED:
            last_seqs = {}  # whoever's messages can't be stored is told so by itself
        except AgnoSQLError as error:
            return [_same(error) for _ in take()]
        answers: list[_Stored | None] = [None] * len(take())
        for place, last_seq in last_seqs.items():
            for index, last in groups[place].last_seqs(last_seq):
                answers[index] = _Stored(last, at)
        return answers

    async def _read(
        self,
        read: Callable[[Any, Sequence[_Asked]], Awaitable[list[_Answer]]],
        take: Callable[[], list[_Asked]],
    ) -> Sequence[_Answer | BaseException | None]:
        try:
            return await self._database.direct(lambda driver: read(driver, take()))
        except _REFUSED:
            return [None] * len(take())
        except AgnoSQLError as error:
            return [_same(error) for _ in take()]


def _for(key: tuple[str, str], among: list[_T]) -> _T:
    return among[hash(key) % len(among)]


def _same(error: AgnoSQLError) -> AgnoSQLError:
    """Return *error* for one of those who are told: each raises his own."""
    same = type(error)(str(error))
    same.__cause__ = error.__cause__
    return same
