"""Messages to rows and back."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agno_sql.errors import CorruptRecordError
from agno_sql.ids import shown
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.store.text import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Row


def message_row(message: Message) -> dict[str, Any]:
    """Return the columns of *message* but its key and seq."""
    return {
        "role": message.role,
        "content": encode(message.content),
        "created_at": message.created_at,
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


def row_message(row: Row[*tuple[Any, ...]], key: tuple[str, str]) -> Message:
    """Return the message of conversation *key* that *row* holds, as the driver handed it over.

    Raises:
        CorruptRecordError: The row was not written by this library; names it.
    """
    with _naming(row.seq, key):
        return Message(
            role=row.role,
            content=decode(row.content),
            created_at=_aware(row.created_at),
            name=None if row.name is None else decode(row.name),
            tool_call_id=None if row.tool_call_id is None else decode(row.tool_call_id),
            tool_calls=_tool_calls(row.tool_calls),
            run_id=row.run_id,
            run_step=row.run_step,
            usage=None if row.input_tokens is None else Usage(row.input_tokens, row.output_tokens),
            seq=row.seq,
        )


def row_tool_calls(row: Row[*tuple[Any, ...]], key: tuple[str, str]) -> tuple[ToolCall, ...]:
    """Return the tool calls that *row*, with seq and tool_calls as stored, holds.

    Raises:
        CorruptRecordError: As in row_message.
    """
    with _naming(row.seq, key):
        return _tool_calls(row.tool_calls)


@contextmanager
def _naming(seq: int, key: tuple[str, str]) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        user_id, session_id = key
        raise CorruptRecordError(
            f"message {seq} of user {shown(user_id)}, session {shown(session_id)} "
            f"can't be decoded: {error}"
        ) from error


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
