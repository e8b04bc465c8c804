"""Messages to rows and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from agno_sql.errors import CorruptRecordError
from agno_sql.ids import shown
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.store.text import decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row


def message_row(message: Message, at: datetime) -> dict[str, Any]:
    """Return the columns of *message* but its key and seq; it was made *at* unless it says when."""
    return {
        "role": message.role,
        "content": encode(message.content),
        "created_at": message.created_at or at,
        "name": None if message.name is None else encode(message.name),
        "tool_call_id": None if message.tool_call_id is None else encode(message.tool_call_id),
        "tool_calls": [
            {"id": encode(call.id), "name": encode(call.name), "arguments": encode(call.arguments)}
            for call in message.tool_calls
        ]
        or None,
        "run_id": message.run_id,
        "run_step": message.run_step,
        "input_tokens": message.usage and message.usage.input_tokens,
        "output_tokens": message.usage and message.usage.output_tokens,
    }


# What row_message takes, in this order.
MESSAGE_COLUMNS: Final = (
    "seq",
    "role",
    "content",
    "created_at",
    "name",
    "tool_call_id",
    "tool_calls",
    "run_id",
    "run_step",
    "input_tokens",
    "output_tokens",
)


def row_message(row: Sequence[Any], key: tuple[str, str]) -> Message:
    """Return the message of conversation *key* that *row* holds, as the driver handed it over.

    Raises:
        CorruptRecordError: The row was not written by this library; names it.
    """
    seq, role, content, at, name, call_id, calls, run_id, run_step, tokens_in, tokens_out = row
    try:
        return Message(
            role=role,
            content=decode(content),
            created_at=_aware(at),
            name=None if name is None else decode(name),
            tool_call_id=None if call_id is None else decode(call_id),
            tool_calls=() if calls is None else _tool_calls(calls),
            run_id=run_id,
            run_step=run_step,
            usage=None if tokens_in is None else Usage(tokens_in, tokens_out),
            seq=seq,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise _corrupt(seq, key, error) from error


def row_tool_calls(row: Row[*tuple[Any, ...]], key: tuple[str, str]) -> tuple[ToolCall, ...]:
    """Return the tool calls that *row*, with seq and tool_calls as stored, holds.

    Raises:
        CorruptRecordError: As in row_message.
    """
    try:
        return _tool_calls(row.tool_calls)
    except (ValueError, TypeError, KeyError) as error:
        raise _corrupt(row.seq, key, error) from error


def _corrupt(seq: int, key: tuple[str, str], error: Exception) -> CorruptRecordError:
    user_id, session_id = key
    return CorruptRecordError(
        f"message {seq} of user {shown(user_id)}, session {shown(session_id)} "
        f"can't be decoded: {error}"
    )


def _aware(stored: datetime | str) -> datetime:
    if isinstance(stored, str):
        stored = datetime.fromisoformat(stored)
    # SQLite stores UTC without saying so; asyncpg returns infinity, which the first and the last
    # datetime become, without a zone.
    return stored if stored.tzinfo else stored.replace(tzinfo=UTC)


def _tool_calls(stored: str | list[dict[str, str]] | None) -> tuple[ToolCall, ...]:
    calls = json.loads(stored) if isinstance(stored, str) else stored
    return tuple(
        ToolCall(decode(call["id"]), decode(call["name"]), decode(call["arguments"]))
        for call in calls or ()
    )
