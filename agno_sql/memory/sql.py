"""The memory in the user's own SQL database."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from agno_sql.clock import SystemClock
from agno_sql.errors import InvalidOptionError
from agno_sql.ids import (
    DEFAULT_SESSION,
    conversation_key,
    named_user_id,
    shown,
    valid_run_id,
    valid_user_id,
)
from agno_sql.memory.api_keys import ApiKeys
from agno_sql.memory.limits import at_least, valid_capacity, valid_duration
from agno_sql.memory.operator import Operator
from agno_sql.memory.sql_run_log import SQLRunLog
from agno_sql.message import Message, Session, UserActivity, checked_messages
from agno_sql.runs import RunFilter, RunKey
from agno_sql.store import activity, clear, reads, retention, run_pages, run_rows
from agno_sql.store.append import append
from agno_sql.store.batches import Batches
from agno_sql.store.database import Database
from agno_sql.store.engine import open_engine
from agno_sql.store.read_together import Read
from agno_sql.store.schema import check_schema, prepare_schema
from agno_sql.store.writes import Write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import Self

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

    from agno_sql.clock import Clock
    from agno_sql.memory.run_log import RunLog
    from agno_sql.runs import RunPlace, RunRecord

_Page = TypeVar("_Page")
_MOST_USERS: Final = 10_000  # of a batch, each is a parameter of one statement


class SQLMemory:
    """A Memory in SQLite or PostgreSQL, for any number of tasks and processes at once.

    What a method acknowledged survives a crash of this process and of the database's server.
    Every method raises StoreUnavailableError if the database can't be reached (nothing was
    stored; retryable), OutcomeUnknownError if the connection broke at COMMIT, and
    SchemaOutOfDateError if the tables are missing or not of this version.

    Args:
        engine: The caller's, who disposes it. Transactions are begun and ended as they must be
            whatever its settings are; on SQLite, how durable a commit is depends on its pragmas.
            An engine with one connection for all tasks (StaticPool) is refused.
        capacity: How many messages a user's session keeps, at least 1; ``None`` keeps all.
        clock: Where created_at and last activity come from.
    """

    def __init__(
        self, engine: AsyncEngine, *, capacity: int | None = 100, clock: Clock | None = None
    ) -> None:
        self._capacity = valid_capacity(capacity)
        self._database = Database(engine)
        self._clock = clock or SystemClock()
        self._batches = Batches(self._database, clock=self._clock, capacity=self._capacity)
        self._run_log = SQLRunLog(
            self._database, self._batches, clock=self._clock, capacity=self._capacity
        )
        self._api_keys = ApiKeys(self._database, clock=self._clock)
        self._operator = Operator(self._database, clock=self._clock)

    @property
    def run_log(self) -> RunLog:
        """What makes an agent's runs durable; agents use it by themselves."""
        return self._run_log

    @property
    def api_keys(self) -> ApiKeys:
        """The API keys of a server on this database."""
        return self._api_keys

    @property
    def operator(self) -> Operator:
        """What an operator asks, over all users of this database."""
        return self._operator

    async def check(self) -> None:
        """Return if the database answers and its tables are of this version; else raise."""
        await self._database.read(check_schema)

    async def get_run(
        self, run_id: str, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION
    ) -> RunRecord | None:
        """Return what is stored about a run; ``None`` for one that is not known, or was pruned.

        A run is kept as long as its last message.
        """
        key = RunKey(*conversation_key(user_id, session_id), valid_run_id(run_id))
        return await self._database.read(lambda conn: run_rows.get(conn, key))

    async def runs(
        self,
        user_id: str | None = None,
        wanted: RunFilter | None = None,
        *,
        limit: int = 100,
        after: RunPlace | None = None,
    ) -> list[RunRecord]:
        """Return a page of the user's *wanted* runs, the latest change first.

        *after* is the ``place`` of the last run of the page before; ``None`` begins.
        """
        user, limit = valid_user_id(user_id), at_least(0, limit, "limit")
        return await self._database.read(
            lambda conn: run_pages.page(conn, user, wanted or RunFilter(), limit=limit, after=after)
        )

    async def count_runs(self, user_id: str | None = None, wanted: RunFilter | None = None) -> int:
        """Return how many *wanted* runs of the user are kept."""
        user = valid_user_id(user_id)
        return await self._database.read(
            lambda conn: run_pages.count(conn, user, wanted or RunFilter())
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str | URL,
        *,
        capacity: int | None = 100,
        migrate: bool | None = None,
        clock: Clock | None = None,
    ) -> AsyncIterator[Self]:
        """Open a memory with an engine of its own, which is disposed at the end.

        Args:
            url: ``sqlite:///file.db`` or ``postgresql://user:password@host/database``.
            capacity: As in the constructor.
            migrate: ``True`` upgrades the tables, ``False`` only checks them; ``None`` upgrades an
                SQLite file and only checks PostgreSQL, where that is an administrator's decision.
            clock: As in the constructor.

        Raises:
            InvalidDatabaseURLError: Not a URL of a supported database.
            SchemaOutOfDateError: The tables are missing or not of this version; names the command.
            StoreUnavailableError: The database can't be reached.
        """
        valid_capacity(capacity)
        engine = open_engine(url)
        try:
            memory = cls(engine, capacity=capacity, clock=clock)
            may_upgrade = engine.dialect.name == "sqlite" if migrate is None else migrate
            await prepare_schema(memory._database, may_upgrade=may_upgrade)
            memory._database.keep_connections()
            try:
                yield memory
            finally:
                memory._database.close()
                try:
                    await memory._batches.rest()  # a connection in use would outlive its engine
                finally:
                    await memory._database.hand_back()
        finally:
            await engine.dispose()

    async def add(
        self, message: Message, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION
    ) -> Message:
        """Store *message* at the end of the session; return it with ``seq`` and ``created_at``.

        See ``extend``, which it is for one message.
        """
        (stored,) = await self.extend([message], user_id, session_id=session_id)
        return stored

    async def extend(
        self,
        messages: Iterable[Message],
        user_id: str | None = None,
        *,
        session_id: str = DEFAULT_SESSION,
    ) -> list[Message]:
        """Store *messages* at the end of a conversation, all of them or none.

        Safe to call from concurrent tasks and processes: appends to one conversation go one after
        another and never interleave. When this returns, a reader in any process sees the messages.

        Args:
            messages: Oldest first. Empty is allowed and stores nothing. A seq they have is
                ignored, a created_at is kept.
            user_id: The tenant; ``None`` is the user ``"default"``.
            session_id: The user's conversation.

        Returns:
            The stored messages, in order. ``seq`` starts at 1 per session and has no gaps.

        Raises:
            InvalidMessageError: What is no Message; nothing was stored.
        """
        key = conversation_key(user_id, session_id)
        new = checked_messages(messages)
        if not new:
            return []
        stored = await self._batches.write(Write(kind="append", key=key, messages=new))
        if stored is not None:
            return stored
        return await self._database.write(
            lambda conn: append(conn, key, new, at=self._clock.now(), capacity=self._capacity)
        )

    async def get_messages(
        self,
        user_id: str | None = None,
        *,
        session_id: str = DEFAULT_SESSION,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[Message]:
        """Return the newest *limit* messages (``None``: all that are kept), oldest first.

        With *before*, only messages whose seq is lower: the seq of the first message of one page
        is the ``before`` of the page in front of it.

        Raises:
            CorruptRecordError: A row can't be decoded; names its key.
        """
        key = conversation_key(user_id, session_id)
        limit = None if limit is None else at_least(0, limit, "limit")
        before = None if before is None else at_least(0, before, "before")
        read = await self._batches.read(Read(key, limit, before))
        if read is not None:
            return read
        return await self._database.read(
            lambda conn: reads.newest_messages(conn, key, limit=limit, before=before)
        )

    async def oldest_messages(
        self,
        user_id: str | None = None,
        *,
        session_id: str = DEFAULT_SESSION,
        limit: int,
        after: int = 0,
    ) -> list[Message]:
        """Return the oldest *limit* messages whose seq is above *after*, oldest first.

        The seq of the last message of one page is the ``after`` of the next.
        """
        key = conversation_key(user_id, session_id)
        limit, after = at_least(0, limit, "limit"), at_least(0, after, "after")
        return await self._database.read(
            lambda conn: reads.oldest_messages(conn, key, limit=limit, after=after)
        )

    async def clear(self, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION) -> None:
        """Delete the messages of one session; the next message goes on with the next seq."""
        key = conversation_key(user_id, session_id)
        await self._database.write(lambda conn: clear.clear(conn, key))

    async def clear_all(self) -> None:
        """Delete everything of every user; every session starts anew with seq 1."""
        await self._database.write(clear.clear_all, long=True)

    async def size(self, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION) -> int:
        """Return how many messages the session holds; 0 for one that does not exist."""
        key = conversation_key(user_id, session_id)
        return await self._database.read(lambda conn: reads.message_count(conn, key))

    async def sessions(
        self, user_id: str | None = None, *, limit: int = 100, after: Session | None = None
    ) -> list[Session]:
        """Return a page of the user's sessions, latest activity first.

        *after* is the last session of the page before; ``None`` begins.
        """
        user, limit = valid_user_id(user_id), at_least(0, limit, "limit")
        after = _page_end(after, Session)
        return await self._database.read(
            lambda conn: activity.sessions(conn, user, limit=limit, after=after)
        )

    async def session(
        self, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION
    ) -> Session | None:
        """Return one of the user's sessions; ``None`` for one that does not exist."""
        key = conversation_key(user_id, session_id)
        return await self._database.read(lambda conn: activity.session(conn, key))

    async def last_activity(self, user_id: str | None = None) -> datetime | None:
        """Return when a message of the user was last stored; ``None`` for an unknown user."""
        user = valid_user_id(user_id)
        return await self._database.read(lambda conn: activity.last_activity(conn, user))

    async def inactive_users(
        self, idle_for: timedelta, *, limit: int = 100, after: UserActivity | None = None
    ) -> list[UserActivity]:
        """Return a page of the users without activity for at least *idle_for*, longest idle first.

        *after* is the last user of the page before; ``None`` begins. An *idle_for* of zero lists
        everybody.
        """
        until, limit = self._idle_since(idle_for), at_least(0, limit, "limit")
        after = _page_end(after, UserActivity)
        return await self._database.read(
            lambda conn: activity.inactive_users(conn, until, limit=limit, after=after)
        )

    async def delete_inactive(
        self,
        idle_for: timedelta,
        batch: int = 500,
        *,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Delete the users without activity for at least *idle_for*; return how many.

        Works in transactions of at most *batch* users, 1 to 10,000, and of fewer where they have
        many messages, and rests after each for as long as it took, a second at most, so that
        others do not wait for long.
        A user who comes back meanwhile is kept whole. *progress* is told the users deleted by
        each batch.
        """
        until, batch = self._idle_since(idle_for), at_least(1, batch, "batch", most=_MOST_USERS)
        deleted = 0
        async for users in retention.delete_inactive(self._database, until, batch=batch):
            deleted += users
            if progress is not None:
                progress(users)
        return deleted

    async def erase(self, user_id: str) -> int:
        """Delete everything of one user; return how many messages that were.

        The user must be named: there is no default for what can't be undone.
        """
        user = named_user_id(user_id)
        return await self._database.write(lambda conn: clear.erase(conn, user), long=True)

    def _idle_since(self, idle_for: timedelta) -> datetime:
        try:
            return self._clock.now() - valid_duration(idle_for, "idle_for")
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)


def _page_end(after: _Page | None, kind: type[_Page]) -> _Page | None:
    if after is not None and not isinstance(after, kind):
        raise InvalidOptionError(
            f"after must be the last {kind.__name__} of the page before, got {shown(after)}"
        )
    return after
