"""The records of a run: what names it, what holds it, what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, NamedTuple

from agno_sql.errors import RunLostError
from agno_sql.ids import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from agno_sql.message import Message, Usage

RunStatus = Literal["running", "completed", "failed", "cancelled"]


class RunKey(NamedTuple):
    """What names a run. A run_id belongs to its conversation: two may use the same one."""

    user_id: str
    session_id: str
    run_id: str

    @property
    def conversation(self) -> tuple[str, str]:
        """The key of the conversation it belongs to."""
        return self.user_id, self.session_id


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a conversation as its run, until it expires and somebody takes it over.

    ``token`` is the fencing token, 32 hexadecimal digits that nobody else has: each write is
    refused unless the conversation still holds it.
    """

    key: RunKey
    token: str
    duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What a run begins with; ``input`` is the user's message."""

    agent_id: str
    model: str
    input: Message

    @property
    def input_sha256(self) -> str:
        """A digest of the input, by which a run_id that is used again is told apart."""
        return sha256(self.input.content.encode("utf-8", "surrogatepass")).hexdigest()

    def is_of(self, record: RunRecord) -> bool:
        """Tell whether *record* is of a run that began like this."""
        return (record.agent_id, record.input_sha256) == (self.agent_id, self.input_sha256)


@dataclass(frozen=True, slots=True)
class BegunRun:
    """A run that may go on: what it has stored, by step, and the conversation before it."""

    turn: Sequence[Message]
    history: Sequence[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ends that has no answer."""

    status: Literal["failed", "cancelled"]
    error_type: str
    error_message: str
    usage: Usage | None = None
    """All that it cost; ``None`` sums what its stored messages cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What is stored about a run.

    ``attempt`` counts who worked on it: 1, and one more each time it was resumed. The error of a
    run that failed or was cancelled is told by the name of its class and its message; of errors
    that are not agno_sql's own only the class, as their text may hold secrets. A run that was
    interrupted and never resumed has ``RunInterruptedError``.
    """

    user_id: str
    session_id: str
    run_id: str
    agent_id: str
    status: RunStatus
    attempt: int
    model: str
    usage: Usage
    input_sha256: str
    started_at: datetime
    finished_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    error_type: str | None = None
    error_message: str | None = None

    @property
    def place(self) -> RunPlace:
        """Where it stands among its user's runs."""
        return RunPlace(self.finished_at or self.started_at, self.session_id, self.run_id)


class RunPlace(NamedTuple):
    """Where a run stands among its user's; ``changed_at`` is when it ended, else when it began."""

    changed_at: datetime
    session_id: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs of a user are asked for; ``None`` does not matter."""

    agent_id: str | None = None
    session_id: str | None = None
    status: RunStatus | None = None
    changed_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run's record, and its kept messages by step if it has ended."""

    record: RunRecord
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Renewal:
    """The tokens of the leases that were lost, and of those whose run is to be cancelled."""

    lost: frozenset[str]
    cancelled: frozenset[str]


def run_lost(key: RunKey) -> RunLostError:
    """Return the error for a run that no longer holds its conversation."""
    return RunLostError(
        f"run {key.run_id} of user {shown(key.user_id)}, session {shown(key.session_id)} was taken "
        "over, or its conversation was cleared: nothing more was stored; run it again by its "
        "run_id to learn what became of it"
    )
