"""What happens in a run, as ``Agent.stream`` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agno_sql.agent.output import RunOutput
    from agno_sql.errors import AgnoSQLError
    from agno_sql.message import Message, ToolCall


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of text, as the model says it; post hooks have not seen it yet."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """A tool call begins. The calls of one round run concurrently."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """A tool call ended; ``message`` is the result as the model will read it."""

    call: ToolCall
    message: Message


@dataclass(frozen=True, slots=True)
class RunCompleted:
    """The last event of a run that went well: the answer is stored."""

    output: RunOutput


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The last event of a run that did not: what ``Agent.run`` would have raised."""

    error: AgnoSQLError


RunEvent = TextDelta | ToolCalled | ToolReturned | RunCompleted | RunFailed
