"""Calling the tool that a model wants; whatever goes wrong becomes a text that it can read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from agno_sql.agent.context import RunContext, idempotency_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agno_sql.agent.tools import Tool
    from agno_sql.message import ToolCall
    from agno_sql.runs import RunKey

INTERRUPTED_RESULT: Final = (
    "Interrupted: the process that made this call went away before its result was stored, and it "
    "was not made again; whether the tool ran is unknown."
)


def find_tool(tools: Sequence[Tool], name: str) -> Tool | None:
    """Return the tool that is called *name*."""
    return next((tool for tool in tools if tool.name == name), None)


async def tool_result(
    tools: Sequence[Tool],
    wanted: ToolCall,
    context: RunContext,
    *,
    is_stopped: Callable[[], bool],
) -> str:
    """Return the result of *wanted*; *is_stopped* tells whether the run has cancelled the call."""
    tool = find_tool(tools, wanted.name)
    if tool is None:
        known = ", ".join(tool.name for tool in tools) or "none"
        return f"UnknownToolError: there is no tool {wanted.name!r}; the tools are: {known}"
    try:
        return await tool.invoke(wanted.arguments, context)
    except asyncio.CancelledError as error:
        if is_stopped():
            raise
        return _told(error)  # the tool's own doing, not ours
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  (SystemExit too: a tool is not the process)
        return _told(error)


def call_context(key: RunKey, wanted: ToolCall, *, round_number: int, position: int) -> RunContext:
    """Return what the tool is told: the same each time that this call is made."""
    return RunContext(
        user_id=key.user_id,
        session_id=key.session_id,
        run_id=key.run_id,
        tool_call_id=wanted.id,
        idempotency_key=idempotency_key(*key, round_number=round_number, position=position),
    )


def _told(error: BaseException) -> str:
    words = ""
    with suppress(Exception):  # an exception's own __str__ may fail
        words = str(error)
    return f"{type(error).__name__}: {words}".rstrip(": ")
