"""The database that the workers share: a file, or a server of our own that can be killed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from agno_sql.memory.sql import SQLMemory
from tests.support.postgres import PrivatePostgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_T = TypeVar("_T")

DatabaseName = Literal["sqlite", "postgresql"]


class Site:
    """A migrated database; on PostgreSQL with the server, whose life is ours."""

    def __init__(self, url: str, server: PrivatePostgres | None) -> None:
        self.url = url
        self.is_up = True
        self._server = server
        self._work: asyncio.Future[Any] | None = None

    @property
    def can_be_killed(self) -> bool:
        return self._server is not None

    @classmethod
    @asynccontextmanager
    async def open(cls, name: DatabaseName, folder: Path) -> AsyncIterator[Self]:
        server = PrivatePostgres(18, durable=True) if name == "postgresql" else None
        site = cls(f"sqlite:///{folder / 'chaos.db'}" if server is None else server.url, server)
        try:
            if server is not None:
                await site._in_thread(server.start)
            async with SQLMemory.open(site.url, migrate=True):
                pass
            yield site
        finally:
            await site.settle()
            if server is not None:
                server.destroy()

    async def kill(self) -> None:
        """Kill the server with all its processes."""
        await self._in_thread(self._kill)

    async def start_again(self) -> None:
        await self._in_thread(self._start_again)

    async def settle(self) -> None:
        """Wait until the server was killed or started, if a cancellation has left that to itself.

        A thread can't be cancelled: it would start what is being started or destroyed.
        """
        if self._work is not None:
            await asyncio.gather(self._work, return_exceptions=True)

    def _kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self.is_up = False

    def _start_again(self) -> None:
        assert self._server is not None
        self._server.start_again()
        self.is_up = True

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        await self.settle()
        self._work = asyncio.ensure_future(asyncio.to_thread(work))
        return await asyncio.shield(self._work)
