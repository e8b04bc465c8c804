"""What an operator asks over all users."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import text

from agno_sql.errors import (
    CorruptRecordError,
    InvalidOptionError,
    InvalidRunIdError,
    InvalidSessionIdError,
    InvalidUserIdError,
)
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from agno_sql.oversight import Day, Kept
from agno_sql.runs import Ending
from agno_sql.store.engine import open_engine
from tests.store.test_group_commit import lease_of, new_run
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HIGHEST: Final = "\U0010ffff"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def memory(database_url: str, clock: FakeClock) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url, clock=clock) as opened:
        yield opened


async def run_of(
    memory: SQLMemory, user: str, run_id: str, *, fails: bool = False, session: str = "default"
) -> None:
    lease = lease_of(run_id, user, session)
    await memory.run_log.begin(lease, new_run(run_id), limit=20)
    if fails:
        ending = Ending(status="failed", error_type="ModelError", error_message="no")
        await memory.run_log.end(lease, [], ending)
    else:
        answer = Message(role="assistant", content="hi", run_id=run_id, run_step=1)
        await memory.run_log.complete(lease, answer, usage=Usage(5, 2))
