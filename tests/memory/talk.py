"""What the tests of activity and retention let users say, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from agno_sql.message import Message

if TYPE_CHECKING:
    from agno_sql.memory.sql import SQLMemory

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


async def say(memory: SQLMemory, user: str, *, session: str = "default", times: int = 1) -> None:
    await memory.extend([Message.user("hello")] * times, user, session_id=session)
