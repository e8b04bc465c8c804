"""How runs end, as it is stored and as it is told again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from agno_sql.agent.output import RunOutput
from agno_sql.errors import (
    AgnoSQLError,
    RunCancelledError,
    RunFailedError,
    RunIdReusedError,
)
from agno_sql.runs import Ending

if TYPE_CHECKING:
    from agno_sql.message import Usage
    from agno_sql.runs import NewRun, StoredRun

_LONGEST_MESSAGE: Final = 2000


def ending_of(error: BaseException, usage: Usage) -> Ending:
    """Return how a run ends that *error* ended.

    Errors that are not agno_sql's own are told by their class alone: their text may hold secrets.
    """
    is_cancelled = isinstance(error, asyncio.CancelledError | RunCancelledError)
    return Ending(
        status="cancelled" if is_cancelled else "failed",
        error_type=RunCancelledError.__name__ if is_cancelled else type(error).__name__,
        error_message=str(error)[:_LONGEST_MESSAGE] if isinstance(error, AgnoSQLError) else "",
        usage=usage,
    )


def ended_output(run: StoredRun, new: NewRun) -> RunOutput:
    """Return what a run of the same id, which has ended, is answered with.

    Raises:
        RunIdReusedError: It was another run.
        RunFailedError, RunCancelledError: It has no answer.
    """
    record = run.record
    check_is_same(run, new)
    told = f"{record.error_type}: {record.error_message}".rstrip(": ")
    if record.status == "failed":
        raise RunFailedError(
            f"run {record.run_id} has failed before ({told}); use another run_id to try again",
            error_type=record.error_type or "",
        )
    if record.status == "cancelled":
        raise RunCancelledError(
            f"run {record.run_id} was cancelled before; use another run_id to try again"
        )
    return RunOutput(
        content=run.messages[-1].content,
        user_id=record.user_id,
        session_id=record.session_id,
        run_id=record.run_id,
        model=record.model,
        messages=tuple(run.messages),
        usage=record.usage,
    )


def check_is_same(run: StoredRun, new: NewRun) -> None:
    """Raise RunIdReusedError unless *run* began as *new* does."""
    if not new.is_of(run.record):
        raise RunIdReusedError(
            f"run_id {run.record.run_id} is that of an earlier run of agent "
            f"{run.record.agent_id!r}, with another input or agent; use a run_id of its own for "
            "each input"
        )
