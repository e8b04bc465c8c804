"""What an operator asks of a database, over all its users."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from agno_sql.ids import conversation_key, named_user_id, valid_run_id
from agno_sql.memory.limits import at_least, valid_duration
from agno_sql.oversight import Kept, SessionRun, Statistics
from agno_sql.store import activity, oversight, retention, statistics

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.clock import Clock
    from agno_sql.message import UserActivity
    from agno_sql.store.database import Database

_FAILURES: Final = 10
_MOST_DAYS: Final = 366
_BATCH: Final = 500


class Operator:
    """Looks at all users of a database. Methods raise the same store errors as SQLMemory's.

    All but ``statistics`` and ``inactive`` find what they need by an index.
    """

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def users(
        self, *, limit: int = 100, after: UserActivity | None = None
    ) -> list[UserActivity]:
        """Return a page of all users, latest activity first.

        *after* is the last user of the page before; ``None`` begins.
        """
        limit = at_least(0, limit, "limit")
        return await self._database.read(
            lambda conn: activity.latest_users(conn, limit=limit, after=after)
        )

    async def users_by_prefix(
        self, prefix: str, *, limit: int = 100, after: str = ""
    ) -> list[UserActivity]:
        """Return a page of the users whose ids begin with *prefix*, in the order of their ids.

        *after* is the id of the last user of the page before.
        """
        prefix, limit = named_user_id(prefix), at_least(0, limit, "limit")
        return await self._database.read(
            lambda conn: activity.users_by_prefix(conn, prefix, limit=limit, after=after)
        )

    async def kept(self, user_id: str, *, session_id: str | None = None) -> Kept:
        """Return how much is kept of a user, or of one of their sessions; nothing is no error."""
        user = named_user_id(user_id)
        if session_id is None:
            return await self._database.read(lambda conn: oversight.kept_of_user(conn, user))
        key = conversation_key(user, session_id)
        return await self._database.read(lambda conn: oversight.kept_of_session(conn, key))

    async def runs(
        self,
        user_id: str,
        *,
        session_id: str,
        limit: int = 100,
        after: tuple[int, str] | None = None,
    ) -> list[SessionRun]:
        """Return a page of a session's runs that are kept, the newest first.

        *after* is the ``last_seq`` and the run_id of the last run of the page before.
        """
        key = conversation_key(named_user_id(user_id), session_id)
        limit = at_least(0, limit, "limit")
        if after is not None:
            after = at_least(0, after[0], "after"), valid_run_id(after[1])
        return await self._database.read(
            lambda conn: oversight.session_runs(conn, key, limit=limit, after=after)
        )

    async def inactive(self, until: datetime) -> Kept:
        """Return how much is kept of the users without activity after *until*."""
        return await self._database.read(
            lambda conn: oversight.kept_of_inactive(conn, until), long=True
        )

    async def delete_inactive(self, until: datetime, *, within: timedelta) -> int:
        """Delete the users without activity after *until*; return how many.

        Stops when the time is over, and leaves the others to the next call. A user who comes back
        meanwhile is kept whole.
        """
        end = time.monotonic() + valid_duration(within, "within").total_seconds()
        deleted = 0
        async for users in retention.delete_inactive(self._database, until, batch=_BATCH):
            deleted += users
            if time.monotonic() > end:
                break
        return deleted

    async def statistics(self, *, days: int = 30) -> Statistics:
        """Return what is kept in all and by day, of the last *days* days, today included.

        Reads all messages and runs, which takes seconds where there are millions.
        """
        days = at_least(1, days, "days", most=_MOST_DAYS)
        began, now = time.perf_counter(), self._clock.now()
        asked = [(now - timedelta(days=ago)).date() for ago in reversed(range(days))]

        async def read(conn: AsyncConnection) -> Statistics:
            return Statistics(
                at=now,
                kept=await oversight.kept_of_all(conn),
                days=await statistics.days(conn, asked),
                failures=await statistics.newest_failures(conn, limit=_FAILURES),
                sizes=await statistics.sizes(conn),
                took=timedelta(seconds=time.perf_counter() - began),
            )

        return await self._database.read(read, long=True)
