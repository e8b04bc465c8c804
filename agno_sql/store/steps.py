"""What a run stores while it holds its conversation: its steps, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import update

from agno_sql.runs import run_lost
from agno_sql.store.append import insert_numbered
from agno_sql.store.fence import locked, reserve
from agno_sql.store.prune import prune
from agno_sql.store.reads import run_messages
from agno_sql.store.run_rows import get, is_run, usage_row
from agno_sql.store.tables import runs

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.message import Message, Usage
    from agno_sql.runs import Lease


async def append(conn: AsyncConnection, lease: Lease, message: Message, *, at: datetime) -> Message:
    """Store one message of the run. Nothing is pruned before the run ends.

    Raises:
        RunLostError: The lease holds the conversation no longer.
    """
    conversation = await reserve(conn, lease, at=at)
    if conversation is None:
        raise run_lost(lease.key)
    (stored,) = await insert_numbered(
        conn, lease.key.conversation, [message], last_seq=conversation.last_seq, at=at
    )
    return stored


async def complete(
    conn: AsyncConnection,
    lease: Lease,
    answer: Message,
    *,
    usage: Usage,
    at: datetime,
    capacity: int | None,
) -> Message:
    """Store the run's answer and end it; the conversation is free and pruned afterwards.

    Raises:
        RunLostError: The lease holds the conversation no longer.
    """
    conversation = await reserve(conn, lease, at=at, release=True)
    if conversation is None:
        raise run_lost(lease.key)
    key = lease.key.conversation
    stored = await insert_numbered(conn, key, [answer], last_seq=conversation.last_seq, at=at)
    await conn.execute(
        update(runs)
        .where(is_run(lease.key))
        .values(
            status="completed",
            last_seq=conversation.last_seq,
            finished_at=at,
            **usage_row(usage),
        )
    )
    await prune(conn, key, conversation, newest=stored, capacity=capacity)
    return stored[0]


async def stored_before(conn: AsyncConnection, lease: Lease, message: Message) -> Message | None:
    """Return *message* as it is stored if this lease has stored it.

    Asked when a commit's outcome is unknown: the lock waits for that transaction's end.
    """
    held = await locked(conn, lease.key.conversation)
    turn = await run_messages(conn, lease.key)
    stored = next((found for found in turn if found.run_step == message.run_step), None)
    if held is None or stored is None or held.lease_token == lease.token:
        return stored
    # Another run has come since. If this one has ended with this answer, the answer is stored.
    run = await get(conn, lease.key)
    has_ended = run is not None and run.status == "completed"
    return stored if has_ended and stored.content == message.content else None
