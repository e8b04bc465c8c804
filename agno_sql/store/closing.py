"""How a run ends that has no answer: failed, cancelled, or interrupted and not resumed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import literal, update

from agno_sql.errors import CorruptRecordError, RunCancelledError
from agno_sql.exchange import closing_results
from agno_sql.message import Usage
from agno_sql.runs import Ending
from agno_sql.store.append import insert_numbered, reserved
from agno_sql.store.fence import RELEASED, locked, of
from agno_sql.store.prune import COUNTERS, prune
from agno_sql.store.reads import newest_messages, run_messages
from agno_sql.store.run_rows import ending_row, is_run, usage_row
from agno_sql.store.tables import conversations, runs
from agno_sql.store.types import UTCDateTime

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.message import Message
    from agno_sql.runs import Lease, RunKey

INTERRUPTED: Final = Ending(
    status="failed",
    error_type="RunInterruptedError",
    error_message="the run was interrupted, and another one of the conversation came before it",
)
CANCELLED: Final = Ending(
    status="cancelled",
    error_type=RunCancelledError.__name__,
    error_message="the run was cancelled",
)


async def close(
    conn: AsyncConnection, lease: Lease, ending: Ending, *, at: datetime, capacity: int | None
) -> None:
    """End the run that *lease* holds; do nothing if it does not hold it any more.

    Safe to repeat.
    """
    held = await locked(conn, lease.key.conversation)
    if held is not None and (held.run_id, held.lease_token) == (lease.key.run_id, lease.token):
        await close_locked(conn, lease.key, ending, at=at, capacity=capacity)


async def close_locked(
    conn: AsyncConnection,
    key: RunKey,
    ending: Ending,
    *,
    at: datetime,
    capacity: int | None,
) -> None:
    """End the run *key*, which holds its conversation, whose row is locked.

    Calls without a result get one that says so: what is stored stays what a provider accepts.
    """
    turn: list[Message] = []
    # A run that can't be read has to end too; whoever reads the conversation is told the row.
    with suppress(CorruptRecordError):
        turn = await run_messages(conn, key)
    results = closing_results(turn, key.run_id, ending.error_type)
    added = reserved(len(results), literal(at, UTCDateTime)) if results else {}
    updated = await conn.execute(
        update(conversations)
        .where(of(key.conversation))
        .values(added | RELEASED | {"lease_token": None})
        .returning(*COUNTERS)
    )
    conversation = updated.one()
    usage = (
        sum((m.usage for m in turn if m.usage), Usage()) if ending.usage is None else ending.usage
    )
    await conn.execute(
        update(runs)
        .where(is_run(key))
        .values(
            **ending_row(ending),
            **usage_row(usage),
            last_seq=conversation.last_seq,
            finished_at=at,
        )
    )
    newest = results and await insert_numbered(
        conn, key.conversation, results, last_seq=conversation.last_seq, at=at
    )
    with suppress(CorruptRecordError):
        newest = newest or await newest_messages(conn, key.conversation, limit=1, before=None)
        await prune(conn, key.conversation, conversation, newest=newest, capacity=capacity)
