"""A conversation as bubbles: each tool call together with its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agno_sql.message import Message, ToolCall

_MOST_CHARACTERS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Said:
    """A text, cut if it is so long that a page of such texts would not open."""

    text: str
    left: int = 0

    @classmethod
    def of(cls, text: str, *, whole: bool) -> Said:
        """Return *text*, all of it if it is to be *whole*."""
        most = len(text) if whole else _MOST_CHARACTERS
        return cls(text[:most], max(0, len(text) - most))


@dataclass(slots=True)
class Call:
    """A tool call, and its result if it is among the same messages."""

    name: str
    arguments: Said | None = None
    result: Said | None = None
    result_seq: int | None = None


@dataclass(slots=True)
class Bubble:
    """A message as it is shown; of a result whose call is elsewhere the call alone."""

    message: Message
    said: Said
    calls: list[Call] = field(default_factory=list)


def bubbles(messages: Iterable[Message], *, whole: bool = False) -> list[Bubble]:
    """Return the bubbles of *messages*, oldest first; long texts are cut unless *whole*."""
    shown: list[Bubble] = []
    waiting: dict[str, Call] = {}
    for message in messages:
        said = Said.of(message.content, whole=whole)
        if message.role != "tool":
            calls = [_call(call, whole=whole) for call in message.tool_calls]
            # Providers use the ids of calls again: a result is of the last call before it.
            waiting |= {one.id: call for one, call in zip(message.tool_calls, calls, strict=True)}
            shown.append(Bubble(message, said, calls))
            continue
        call = waiting.pop(message.tool_call_id or "", None)
        if call is None:
            call = Call(message.name or "tool")
            shown.append(Bubble(message, Said(""), [call]))
        call.result, call.result_seq = said, message.seq
    return shown


def _call(call: ToolCall, *, whole: bool) -> Call:
    return Call(call.name, Said.of(call.arguments, whole=whole))
