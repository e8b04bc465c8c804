"""The lease: which run holds a conversation. Taken, taken over and renewed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, select, tuple_, update

from agno_sql.errors import CorruptRecordError
from agno_sql.runs import Ending, Renewal, RunKey
from agno_sql.store.append import insert_numbered, new_conversation, reserved, upsert
from agno_sql.store.closing import CANCELLED, INTERRUPTED, close_locked
from agno_sql.store.fence import locked, of
from agno_sql.store.reads import run_messages
from agno_sql.store.run_rows import get, is_run, new_run_row
from agno_sql.store.tables import conversations, runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import Any

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.message import Message
    from agno_sql.runs import Lease, NewRun


class RunExistsError(Exception):
    """A run of this id has ended before: what the transaction did has to be rolled back."""


async def begin(
    conn: AsyncConnection, lease: Lease, new: NewRun, *, at: datetime, capacity: int | None
) -> list[Message] | None:
    """Take *lease* for a new run and store its input, or take over the same run if interrupted.

    An interrupted run of another id is closed as failed. Returns the run's messages by step;
    ``None`` if another lease is live, or the run of this id is of another input. Safe to repeat.

    Raises:
        RunExistsError: A run of this id has ended before.
    """
    seq = await _take(conn, lease, at)
    if seq is None:
        # Not taken, but locked by the attempt: what is read now stays until the transaction ends.
        held = await locked(conn, lease.key.conversation)
        if held is None or held.run_id == lease.key.run_id or held.lease_expires_at > at:
            return await _resume_locked(conn, lease, held, at=at, capacity=capacity, new=new)
        interrupted = RunKey(*lease.key.conversation, held.run_id)
        await close_locked(conn, interrupted, INTERRUPTED, at=at, capacity=capacity)
        seq = await _take(conn, lease, at)
    return await _store_input(conn, lease, new, seq=seq, at=at)


async def resume(
    conn: AsyncConnection, lease: Lease, *, at: datetime, capacity: int | None
) -> list[Message] | None:
    """Take over the interrupted run that *lease* names; return its messages by step.

    ``None`` says that it is not interrupted. A run whose cancellation was asked for is closed
    instead. Safe to repeat.
    """
    held = await locked(conn, lease.key.conversation)
    return await _resume_locked(conn, lease, held, at=at, capacity=capacity)


async def renew(conn: AsyncConnection, leases: Sequence[Lease], *, at: datetime) -> Renewal:
    """Extend *leases* from now on; tell which are lost, and whose run is to be cancelled."""
    known: set[str] = set()
    for duration in sorted({lease.duration for lease in leases}):
        group = [lease for lease in leases if lease.duration == duration]
        conversation = tuple_(conversations.c.user_id, conversations.c.session_id)
        is_known = and_(
            conversation.in_(sorted({lease.key.conversation for lease in group})),
            conversations.c.lease_token.in_([lease.token for lease in group]),
        )
        # One that somebody has locked is left for the next time: the others must not wait for it.
        free = await conn.execute(
            select(conversations.c.user_id, conversations.c.session_id)
            .where(is_known, conversations.c.run_id.is_not(None))
            .with_for_update(skip_locked=True)
        )
        await conn.execute(
            update(conversations)
            .where(conversation.in_([tuple(row) for row in free]))
            .values(lease_expires_at=at + duration)
        )
        # A token stays when its run has ended: that one is not lost, its process has yet to hear.
        known.update(await conn.scalars(select(conversations.c.lease_token).where(is_known)))
    asked = await conn.execute(
        select(runs.c.user_id, runs.c.session_id, runs.c.run_id).where(
            tuple_(runs.c.user_id, runs.c.session_id, runs.c.run_id).in_(
                [tuple(lease.key) for lease in leases]
            ),
            runs.c.cancel_requested_at.is_not(None),
        )
    )
    to_cancel = {RunKey(*row) for row in asked}
    return Renewal(
        lost=frozenset(lease.token for lease in leases if lease.token not in known),
        cancelled=frozenset(lease.token for lease in leases if lease.key in to_cancel),
    )


async def is_free(conn: AsyncConnection, key: tuple[str, str], *, at: datetime) -> bool:
    """Tell whether no live lease holds the conversation."""
    expires_at = await conn.scalar(select(conversations.c.lease_expires_at).where(of(key)))
    return expires_at is None or expires_at <= at


async def request_cancel(
    conn: AsyncConnection, key: RunKey, *, at: datetime, capacity: int | None
) -> bool:
    """Ask whoever works on the run to cancel it; an interrupted one is closed here.

    Returns whether it was running. Safe to repeat.
    """
    held = await locked(conn, key.conversation)
    if held is None or held.run_id != key.run_id:
        return False
    if held.lease_expires_at <= at:
        await close_locked(conn, key, CANCELLED, at=at, capacity=capacity)
    else:
        await conn.execute(update(runs).where(is_run(key)).values(cancel_requested_at=at))
    return True


async def _take(conn: AsyncConnection, lease: Lease, at: datetime) -> int | None:
    """Take a conversation that no run holds and reserve a number; ``None`` if one holds it."""
    new = upsert(conn, conversations).values(
        **new_conversation(lease.key.conversation, 1, at),
        run_id=lease.key.run_id,
        run_first_seq=1,
        lease_token=lease.token,
        lease_expires_at=at + lease.duration,
    )
    taken = {
        **reserved(1, new.excluded.last_active_at),
        "run_id": new.excluded.run_id,
        "run_first_seq": conversations.c.last_seq + 1,
        "lease_token": new.excluded.lease_token,
        "lease_expires_at": new.excluded.lease_expires_at,
    }
    statement = new.on_conflict_do_update(
        index_elements=["user_id", "session_id"],
        set_=taken,
        where=conversations.c.run_id.is_(None),
    )
    seq: int | None = await conn.scalar(statement.returning(conversations.c.last_seq))
    return seq


async def _store_input(
    conn: AsyncConnection, lease: Lease, new: NewRun, *, seq: int | None, at: datetime
) -> list[Message]:
    assert seq is not None  # noqa: S101  (a conversation that was made free under its lock)
    row = new_run_row(lease.key, new, seq=seq, at=at)
    inserted = await conn.execute(upsert(conn, runs).values(row).on_conflict_do_nothing())
    if inserted.rowcount == 0:
        raise RunExistsError
    return await insert_numbered(conn, lease.key.conversation, [new.input], last_seq=seq, at=at)


async def _resume_locked(
    conn: AsyncConnection,
    lease: Lease,
    held: Row[*tuple[Any, ...]] | None,
    *,
    at: datetime,
    capacity: int | None,
    new: NewRun | None = None,
) -> list[Message] | None:
    if held is None or held.run_id != lease.key.run_id:
        return None
    is_ours = held.lease_token == lease.token  # by a commit whose outcome was unknown
    if not is_ours and held.lease_expires_at > at:
        return None
    try:
        run = await get(conn, lease.key)
        turn = await run_messages(conn, lease.key)
    except CorruptRecordError as error:
        ending = Ending(status="failed", error_type=type(error).__name__, error_message=str(error))
        await close_locked(conn, lease.key, ending, at=at, capacity=capacity)
        return None
    if run is None or not (new is None or new.is_of(run)):
        return None
    if not is_ours and run.cancel_requested_at is not None:
        await close_locked(conn, lease.key, CANCELLED, at=at, capacity=capacity)
        return None
    if not is_ours:
        await _take_over(conn, lease, at)
    return turn


async def _take_over(conn: AsyncConnection, lease: Lease, at: datetime) -> None:
    await conn.execute(
        update(conversations)
        .where(of(lease.key.conversation))
        .values(lease_token=lease.token, lease_expires_at=at + lease.duration)
    )
    await conn.execute(update(runs).where(is_run(lease.key)).values(attempt=runs.c.attempt + 1))
