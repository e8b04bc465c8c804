"""Messages to rows and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from agno_sql.errors import CorruptRecordError
from agno_sql.ids import MAX_RUN_ID_CHARACTERS, shown
from agno_sql.message import Message, ToolCall, Usage, unchecked_message
from agno_sql.store.text import ESCAPE, decode, decode_beginning, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Row


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
# Whose messages have no tool call id, and no tool calls as a rule.
_SPEAKERS: Final = frozenset({"system", "user", "assistant"})
_NUMBERS: Final = (int, float)


def message_row(
    message: Message, at: datetime, as_json: Callable[[Any], Any] = list
) -> tuple[Any, ...]:
    """Return the columns of *message* behind its seq; it was made *at* unless it says when.

    *as_json* turns tool calls into what the column takes.
    """
    calls = [
        {"id": encode(call.id), "name": encode(call.name), "arguments": encode(call.arguments)}
        for call in message.tool_calls
    ]
    return (
        message.role,
        encode(message.content),
        message.created_at or at,
        None if message.name is None else encode(message.name),
        None if message.tool_call_id is None else encode(message.tool_call_id),
        as_json(calls) if calls else None,
        message.run_id,
        message.run_step,
        message.usage and message.usage.input_tokens,
        message.usage and message.usage.output_tokens,
    )


def row_message(row: Sequence[Any], key: tuple[str, str]) -> Message:
    """Return the message of conversation *key* that *row* holds, as the driver handed it over.

    In front of MESSAGE_COLUMNS *row* has a value that tells what it was read for: to cut it off
    takes half as long as the decoding.

    Raises:
        CorruptRecordError: The row was not written by this library; names it.
    """
    _, seq, role, content, at, name, call_id, calls, run_id, run_step, tokens_in, tokens_out = row
    try:
        # Written out, as there are hundreds in a batch: a call takes as long as what it does.
        text = content if ESCAPE not in content else decode(content)
        made = _from_text(at) if type(at) is str else _aware(at)
        usage = None if tokens_in is None else _usage(tokens_in, tokens_out)
        is_sound = run_id is run_step is None or _is_sound(run_id, run_step)
        if is_sound and name is call_id is calls is None and role in _SPEAKERS:
            return unchecked_message(role, text, None, (), None, run_id, run_step, usage, seq, made)
        return Message(
            role=role,
            content=text,
            created_at=made,
            name=None if name is None else decode(name),
            tool_call_id=None if call_id is None else decode(call_id),
            tool_calls=() if calls is None else _tool_calls(calls),
            run_id=run_id,
            run_step=run_step,
            usage=usage,
            seq=seq,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise _corrupt(seq, key, error) from error


def beginning(content: str, key: tuple[str, str]) -> str:
    """Return how a message of conversation *key* begins, of which *content* is stored.

    Raises:
        CorruptRecordError: It was not written by this library.
    """
    try:
        return decode_beginning(content)
    except (ValueError, TypeError) as error:
        raise _corrupt(None, key, error) from error


def row_tool_calls(row: Row[*tuple[Any, ...]], key: tuple[str, str]) -> tuple[ToolCall, ...]:
    """Return the tool calls that *row*, with seq and tool_calls as stored, holds.

    Raises:
        CorruptRecordError: As in row_message.
    """
    try:
        return _tool_calls(row.tool_calls)
    except (ValueError, TypeError, KeyError) as error:
        raise _corrupt(row.seq, key, error) from error


def _is_sound(run_id: Any, run_step: Any) -> bool:
    # As valid_run_id, which takes longer: what does not pass goes to the constructor, which tells why.
    is_id = type(run_id) is str and 0 < len(run_id) <= MAX_RUN_ID_CHARACTERS and run_id.isascii()
    is_seen = is_id and run_id.isprintable() and " " not in run_id
    return is_seen and type(run_step) is int and run_step >= 0


def _usage(tokens_in: Any, tokens_out: Any) -> Usage:
    # Whatever number a provider told: SQLite keeps it, and it can be added up.
    if type(tokens_in) not in _NUMBERS or type(tokens_out) not in _NUMBERS:
        raise TypeError("its tokens are no numbers")
    return Usage(tokens_in, tokens_out)


def _corrupt(seq: int | None, key: tuple[str, str], error: Exception) -> CorruptRecordError:
    user_id, session_id = key
    which = "a message" if seq is None else f"message {seq}"
    return CorruptRecordError(
        f"{which} of user {shown(user_id)}, session {shown(session_id)} can't be decoded: {error}"
    )


@lru_cache(maxsize=4096)  # a conversation is read again at each of its turns
def _from_text(stored: str) -> datetime:
    made = datetime.fromisoformat(f"{stored}+00:00")  # SQLite stores UTC without saying so
    if made.tzinfo is None:  # of a date alone the offset is read as a time of day
        raise ValueError("created_at has no time of day")
    return made


def _aware(stored: object) -> datetime:
    if not isinstance(stored, datetime):
        raise TypeError(f"created_at is no time but {shown(stored)}")
    # asyncpg returns infinity, which the first and the last datetime become, without a zone.
    return stored if stored.tzinfo else stored.replace(tzinfo=UTC)


def _tool_calls(stored: str | list[dict[str, str]] | None) -> tuple[ToolCall, ...]:
    calls = json.loads(stored) if isinstance(stored, str) else stored
    return tuple(
        ToolCall(decode(call["id"]), decode(call["name"]), decode(call["arguments"]))
        for call in calls or ()
    )
