"""Messages to rows and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agno_sql.errors import CorruptRecordError, InvalidMessageError
from agno_sql.ids import shown
from agno_sql.message import Message, ToolCall
from agno_sql.store.text import decode, encode

if TYPE_CHECKING:
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
    }


def row_message(row: Row[Any], user_id: str, session_id: str) -> Message:
    """Return the message that *row* holds.

    Raises:
        CorruptRecordError: The row was not written by this library; names its key.
    """
    try:
        return Message(
            role=row.role,
            content=decode(row.content),
            created_at=row.created_at,
            name=None if row.name is None else decode(row.name),
            tool_call_id=None if row.tool_call_id is None else decode(row.tool_call_id),
            tool_calls=decode_tool_calls(row.tool_calls),
            run_id=row.run_id,
            seq=row.seq,
        )
    except (InvalidMessageError, ValueError, TypeError, KeyError) as error:
        raise CorruptRecordError(
            f"message {row.seq} of user {shown(user_id)}, session {shown(session_id)} "
            f"can't be decoded: {error}"
        ) from error


def decode_tool_calls(stored: list[dict[str, str]] | None) -> tuple[ToolCall, ...]:
    """Return the tool calls of an assistant's message."""
    return tuple(
        ToolCall(decode(call["id"]), decode(call["name"]), decode(call["arguments"]))
        for call in stored or ()
    )
