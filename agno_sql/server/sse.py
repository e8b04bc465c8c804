"""A run's events as server-sent events: one line of JSON each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from agno_sql.agent.events import RunCompleted, RunEvent, TextDelta, ToolCalled, ToolReturned
from agno_sql.server.problems import problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agno_sql.agent.output import RunOutput
    from agno_sql.server.ongoing import OngoingRun

KEEP_ALIVE_S: Final = 15.0
"""Proxies close a connection on which nothing comes for long."""


_NAMES: Final = ("run", "text", "tool_call", "tool_result", "done", "error")
EVENT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": list(_NAMES)},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


async def event_stream(
    run: OngoingRun, told: Callable[[RunOutput], dict[str, Any]]
) -> AsyncIterator[bytes]:
    """Yield the events of *run* from its beginning; *told* says what is told of the answer.

    The last one is ``done`` or ``error``.
    """
    yield _event("run", run.key._asdict())
    try:
        async for event in run.follow(pause_s=KEEP_ALIVE_S):
            if event is None:
                yield b": still at work\n\n"
            elif isinstance(event, RunCompleted):
                yield _event("done", told(event.output))
            else:
                yield _told(event)
    except Exception as error:  # noqa: BLE001  (it has become the last event)
        problem = problem_of(error, run_id=run.key.run_id)
        yield _event("error", problem.model_dump(exclude_none=True))


def _told(event: RunEvent) -> bytes:
    match event:
        case TextDelta(text):
            return _event("text", {"text": text})
        case ToolCalled(call):
            data = {"id": call.id, "name": call.name, "arguments": call.arguments}
            return _event("tool_call", data)
        case ToolReturned(call, message):
            data = {"id": call.id, "name": call.name, "content": message.content}
            return _event("tool_result", data)
    raise TypeError(f"{type(event).__name__} is told otherwise")


def _event(name: str, data: dict[str, Any]) -> bytes:
    # JSON of ASCII has neither line breaks nor what UTF-8 can't carry.
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode("ascii")
