"""Statistics that no page waits for, though it takes seconds to read them."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from agno_sql.errors import AgnoSQLError

if TYPE_CHECKING:
    from agno_sql.memory.operator import Operator
    from agno_sql.oversight import Statistics

_log: Final = logging.getLogger(__name__)
_WAIT_S: Final = 0.1
_REST: Final = 20
"""How many times as long as the reading took it rests: that is its share of the database."""


class RecentStatistics:
    """The newest statistics, read again in the background when somebody looks at them.

    Small databases answer at once; of large ones the last statistics are shown until the next are
    there, however many look at them.
    """

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._found: Statistics | None = None
        self._reading: asyncio.Task[None] | None = None
        self._rests_until = 0.0
        self.has_failed = False

    async def get(self) -> Statistics | None:
        """Return the statistics; ``None`` if the first are still being read, or can't be."""
        if self._reading is None and time.monotonic() >= self._rests_until:
            self._reading = asyncio.create_task(self._read())
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=_WAIT_S)
        return self._found

    async def stop(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _read(self) -> None:
        began, is_read = time.monotonic(), False
        try:
            self._found, is_read = await self._operator.statistics(), True
        except AgnoSQLError as error:
            _log.warning("the statistics can't be read: %s", error)
        finally:
            now, self.has_failed = time.monotonic(), not is_read
            self._rests_until = now + _REST * (now - began)
            self._reading = None
