"""Tasks: our runs, as A2A tells them. There is no other store of them."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Final

from a2a.types import (
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

from agno_sql.errors import InvalidInputError
from agno_sql.ids import valid_run_id, valid_session_id
from agno_sql.message import encodable
from agno_sql.server.refusals import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from agno_sql.message import Message as StoredMessage
    from agno_sql.runs import RunRecord, RunStatus

STATES: Final[dict[RunStatus, TaskState]] = {
    "running": TaskState.TASK_STATE_WORKING,
    "completed": TaskState.TASK_STATE_COMPLETED,
    "failed": TaskState.TASK_STATE_FAILED,
    "cancelled": TaskState.TASK_STATE_CANCELED,
}
TEXT: Final = "text/plain"
_ANSWER: Final = "answer"


def task_id_of(context_id: str, run_id: str) -> str:
    """Return the id of the task that a run of the context is: what finds it, in letters of URLs."""
    # No id has a control character in it.
    return urlsafe_b64encode(f"{context_id}\n{run_id}".encode()).decode().rstrip("=")


def read_task_id(task_id: str) -> tuple[str, str]:
    """Return the context and the run_id that the id was made of.

    Raises:
        NotFoundError: It is none that ``task_id_of`` makes.
    """
    try:
        padded = task_id.encode("ascii") + b"=" * (-len(task_id) % 4)
        context_id, _, run_id = urlsafe_b64decode(padded).decode().partition("\n")
        valid_session_id(context_id)
        valid_run_id(run_id)
    except (ValueError, InvalidInputError):
        no_such_task()
    if task_id_of(context_id, run_id) != task_id:
        no_such_task()  # base64 has several spellings of one text
    return context_id, run_id


def no_such_task() -> NoReturn:
    """Say that there is no such task, whyever that is."""
    raise NotFoundError("there is no such task")


def task_of(record: RunRecord, messages: Sequence[StoredMessage], context_id: str) -> Task:
    """Return a run as a task; *messages* are those that it has stored, by step."""
    task_id = task_id_of(context_id, record.run_id)
    task = Task(id=task_id, context_id=context_id, status=status_of(record))
    if messages and messages[0].role == "user":
        task.history.append(
            Message(
                message_id=record.run_id,
                context_id=context_id,
                task_id=task_id,
                role=Role.ROLE_USER,
                parts=[_part(messages[0].content)],
            )
        )
    if record.status == "completed" and messages:
        task.artifacts.append(_answer(messages[-1].content))
    return task


def status_of(record: RunRecord) -> TaskStatus:
    """Return the state of a run, since when it has it, and the kind of error that ended it."""
    status = TaskStatus(state=STATES[record.status])
    status.timestamp.FromDatetime(record.place.changed_at)
    if record.status == "failed":
        # Not what the error says, which may hold secrets.
        status.message.CopyFrom(
            Message(
                message_id=f"{record.run_id}-error",
                role=Role.ROLE_AGENT,
                parts=[_part(f"The task failed: {record.error_type}")],
            )
        )
    return status


def answer_event(
    task: Task, text: str, *, append: bool, is_last: bool = False
) -> TaskArtifactUpdateEvent:
    """Return the event of a piece of the answer, or of an answer that replaces what was told."""
    return TaskArtifactUpdateEvent(
        task_id=task.id,
        context_id=task.context_id,
        artifact=_answer(text),
        append=append,
        last_chunk=is_last,
    )


def status_event(task: Task, record: RunRecord) -> TaskStatusUpdateEvent:
    """Return the event of a run that has ended."""
    return TaskStatusUpdateEvent(
        task_id=task.id, context_id=task.context_id, status=status_of(record)
    )


def _answer(text: str) -> Artifact:
    return Artifact(artifact_id=_ANSWER, name=_ANSWER, parts=[_part(text)])


def _part(text: str) -> Part:
    return Part(text=encodable(text), media_type=TEXT)
