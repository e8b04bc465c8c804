"""Runs: what became of one, and cancelling it."""

from datetime import datetime
from typing import Annotated, Final, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from agno_sql.ids import DEFAULT_SESSION
from agno_sql.runs import RunKey, RunRecord, RunStatus
from agno_sql.server.chat import TokenUsage
from agno_sql.server.openapi import problems
from agno_sql.server.refusals import NotFoundError
from agno_sql.server.served import (
    RunId,
    SessionId,
    TheCaller,
    TheServed,
    TheSession,
    TheUser,
    UserId,
)

router: Final = APIRouter(tags=["runs"])


class RunState(BaseModel):
    """What is stored about a run; `error` is the kind of error that ended it."""

    user_id: str
    session_id: str
    run_id: str
    status: RunStatus
    attempt: int
    model: str
    usage: TokenUsage
    started_at: datetime
    finished_at: datetime | None
    error: str | None

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        """Return what is told of *record*: not the error's message, which may hold secrets."""
        return cls(
            user_id=record.user_id,
            session_id=record.session_id,
            run_id=record.run_id,
            status=record.status,
            attempt=record.attempt,
            model=record.model,
            usage=TokenUsage.of(record.usage),
            started_at=record.started_at,
            finished_at=record.finished_at,
            error=record.error_type,
        )


class CancelRequest(BaseModel):
    """Which run to cancel."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId | None = None
    session_id: SessionId = DEFAULT_SESSION
    run_id: RunId


class Cancelled(BaseModel):
    """Whether the run was at work, and is cancelled now."""

    was_running: bool


@router.get("/run", summary="Tell the state of a run", responses=problems(401, 403, 404, 422, 503))
async def run_state(
    user: TheUser,
    served: TheServed,
    run_id: Annotated[RunId, Query()],
    session_id: TheSession = DEFAULT_SESSION,
) -> RunState:
    """Tell what is stored about a run. It is known as long as its messages are kept."""
    record = await served.memory.get_run(run_id, user, session_id=session_id)
    if record is None:
        raise NotFoundError("there is no such run")
    return RunState.of(record)


@router.post(
    "/run/cancel",
    summary="Cancel a run",
    responses=problems(401, 403, 404, 413, 415, 422, 503),
)
async def cancel_run(asked: CancelRequest, caller: TheCaller, served: TheServed) -> Cancelled:
    """Cancel a run that is at work, in whatever process; what it has stored stays."""
    user = caller.acting_for(asked.user_id)
    was_running = await served.agent.cancel_run(asked.run_id, user, session_id=asked.session_id)
    if not was_running:
        # One that waits for its conversation has stored nothing yet.
        was_running = served.ongoing.cancel(RunKey(user, asked.session_id, asked.run_id))
    if not was_running:
        found = await served.memory.get_run(asked.run_id, user, session_id=asked.session_id)
        if found is None:
            raise NotFoundError("there is no such run")
    return Cancelled(was_running=was_running)
