"""Tool exchanges: an assistant's message with tool calls, and their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agno_sql.message import Message, ToolCall


def has_call(calls: Iterable[ToolCall], call_id: str | None) -> bool:
    """Tell whether *call_id* is one of *calls*."""
    return any(call.id == call_id for call in calls)


def newest_exchange(messages: Sequence[Message]) -> int | None:
    """Return the index at which the tool exchange of the newest message begins.

    That is the newest message itself unless it is a tool's result; ``None`` if it is a result and
    none of *messages* called for it.
    """
    newest = len(messages) - 1
    if messages[newest].role != "tool":
        return newest
    call_id = messages[newest].tool_call_id
    for index in range(newest - 1, -1, -1):
        if has_call(messages[index].tool_calls, call_id):
            return index
    return None
