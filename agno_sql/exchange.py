"""Tool exchanges: an assistant's message with tool calls, and their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agno_sql.message import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agno_sql.message import ToolCall


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


def open_calls(turn: Sequence[Message]) -> list[tuple[int, ToolCall]]:
    """Return the calls of a run's last round that have no result, each with its result's step.

    *turn* holds the run's messages by step. A round's results have the steps behind its calls, in
    call order: providers repeat call ids, so an id tells no call apart.
    """
    asked = next((message for message in reversed(turn) if message.tool_calls), None)
    if asked is None or asked.run_step is None:
        return []
    answered = {message.run_step for message in turn}
    steps = enumerate(asked.tool_calls, start=asked.run_step + 1)
    return [(step, call) for step, call in steps if step not in answered]


def closing_results(turn: Sequence[Message], run_id: str, reason: str) -> list[Message]:
    """Return a result for each open call of a run that ends, so that its history stays whole."""
    return [
        Message(
            role="tool",
            content=f"{reason}: the run ended during this call; whether the tool ran is unknown.",
            name=call.name,
            tool_call_id=call.id,
            run_id=run_id,
            run_step=step,
        )
        for step, call in open_calls(turn)
    ]
