"""The window: which stored messages a model is shown, in a form its provider accepts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agno_sql.message import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agno_sql.message import ToolCall

MISSING_RESULT: Final = "No result is stored for this call: whether the tool ran is unknown."


def window(history: Sequence[Message], limit: int | None = None) -> list[Message]:
    """Return what of *history*, oldest first, a model is shown.

    System messages stay, and the newest *limit* others. Every tool call is followed by its results
    in call order; what came in between moves behind them. A call without a result gets one that
    says so, a result without its call is left out, and a call id that repeats within a message is
    made unique: no provider accepts any of these.
    """
    shown = _newest(history, limit)
    results = _matched_results(shown)
    repaired: list[Message] = []
    for index, message in enumerate(shown):
        if message.role == "tool":
            continue
        calls = _with_unique_ids(message.tool_calls)
        repaired.append(
            message if calls == message.tool_calls else replace(message, tool_calls=calls)
        )
        for position, call in enumerate(calls):
            result = results.get((index, position))
            repaired.append(
                Message.tool(MISSING_RESULT, tool_call_id=call.id, name=call.name)
                if result is None
                else replace(result, tool_call_id=call.id)
            )
    return repaired


def _newest(history: Sequence[Message], limit: int | None) -> list[Message]:
    others = [index for index, message in enumerate(history) if message.role != "system"]
    if limit is None or len(others) <= limit:
        return list(history)
    start = others[-limit] if limit else len(history)
    return [m for index, m in enumerate(history) if index >= start or m.role == "system"]


def _with_unique_ids(calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
    unique: dict[str, ToolCall] = {}
    for call in calls:
        call_id = call.id
        while call_id in unique:
            call_id += "_"
        unique[call_id] = replace(call, id=call_id)
    return tuple(unique.values())


def _matched_results(messages: Sequence[Message]) -> dict[tuple[int, int], Message]:
    """Return the result of each call, by the index of its message and its place in there.

    Providers repeat call ids, so a result belongs to the latest call of its id that has none.
    """
    waiting: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    results: dict[tuple[int, int], Message] = {}
    for index, message in enumerate(messages):
        # Backwards, so that of two equal ids in one message the first call takes the first result.
        for position in range(len(message.tool_calls) - 1, -1, -1):
            waiting[message.tool_calls[position].id].append((index, position))
        if message.tool_call_id is not None and waiting[message.tool_call_id]:
            results[waiting[message.tool_call_id].pop()] = message
    return results
