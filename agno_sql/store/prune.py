"""The prune: what an append deletes so that a conversation stays within its capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, delete, func, select, update

from agno_sql.exchange import has_call, newest_exchange
from agno_sql.store.rows import row_tool_calls
from agno_sql.store.tables import conversations, messages, runs
from agno_sql.store.types import as_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from agno_sql.message import Message

COUNTERS: Final = (
    conversations.c.first_seq,
    conversations.c.last_seq,
    conversations.c.message_count,
    conversations.c.run_first_seq,
)


async def prune(
    conn: AsyncConnection,
    key: tuple[str, str],
    conversation: Row[Any],
    *,
    newest: Sequence[Message],
    capacity: int | None,
) -> None:
    """Delete the oldest non-system messages, a prefix, until at most *capacity* remain.

    It goes on to the first that is no tool result, so that no result stays without its call, and
    stops before the newest message with its tool exchange and before the running run. The runs
    whose last message goes go too. *conversation* is its locked row with the COUNTERS, *newest*
    the messages appended last.
    """
    if capacity is None or conversation.message_count <= capacity:
        return
    protected = await _protected_seq(conn, key, newest)
    if conversation.run_first_seq is not None:
        protected = min(protected, conversation.run_first_seq)
    kept = await _first_kept_seq(
        conn, key, conversation, excess=conversation.message_count - capacity, protected=protected
    )
    if kept == conversation.first_seq:
        return
    # The lower bound keeps the scan off the dead rows of earlier prunes.
    deleted = await conn.execute(
        delete(messages).where(
            _of(key),
            messages.c.seq >= conversation.first_seq,
            messages.c.seq < kept,
            messages.c.role != "system",
        )
    )
    await conn.execute(
        update(conversations)
        .where(conversations.c.user_id == key[0], conversations.c.session_id == key[1])
        .values(first_seq=kept, message_count=conversations.c.message_count - deleted.rowcount)
    )
    await conn.execute(
        delete(runs).where(
            runs.c.user_id == key[0], runs.c.session_id == key[1], runs.c.last_seq < kept
        )
    )


async def _first_kept_seq(
    conn: AsyncConnection,
    key: tuple[str, str],
    conversation: Row[Any],
    *,
    excess: int,
    protected: int,
) -> int:
    """Return the seq of the oldest non-system message that stays, at most *protected*."""
    in_range = and_(_of(key), messages.c.seq >= conversation.first_seq, messages.c.seq < protected)
    enough = (
        select(messages.c.seq)
        .where(in_range, messages.c.role != "system")
        .order_by(messages.c.seq)
        .offset(excess)
        .limit(1)
        .scalar_subquery()
    )
    first = await conn.scalar(
        select(func.min(messages.c.seq)).where(
            in_range, messages.c.seq >= enough, messages.c.role.not_in(("tool", "system"))
        )
    )
    return protected if first is None else int(first)


async def _protected_seq(
    conn: AsyncConnection, key: tuple[str, str], newest: Sequence[Message]
) -> int:
    """Return the seq from which on nothing is pruned."""
    last = newest[-1]
    assert last.seq is not None  # noqa: S101  (they were just numbered)
    if last.role == "system":
        return last.seq + 1
    start = newest_exchange(newest)
    if start is not None:
        return last.seq - (len(newest) - 1 - start)
    calls = await conn.execute(
        select(messages.c.seq, as_stored(messages.c.tool_calls))
        .where(_of(key), messages.c.seq < last.seq, messages.c.tool_calls.is_not(None))
        .order_by(messages.c.seq.desc())
    )
    for row in calls:
        if has_call(row_tool_calls(row, key), last.tool_call_id):
            return int(row.seq)
    return last.seq


def _of(key: tuple[str, str]) -> ColumnElement[bool]:
    return and_(messages.c.user_id == key[0], messages.c.session_id == key[1])
