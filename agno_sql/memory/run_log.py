"""What makes runs durable: the second protocol beside Memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agno_sql.message import Message, Usage
    from agno_sql.runs import BegunRun, Ending, Lease, NewRun, Renewal, RunKey, StoredRun


class RunLog(Protocol):
    """The runs of any number of users: at most one at work in a conversation.

    A Memory whose runs survive their process has one as its attribute ``run_log``.

    What a method acknowledged is stored. Each write of a run names its lease and is refused with
    RunLostError, storing nothing, unless that lease holds the conversation.
    """

    async def find(self, key: RunKey) -> StoredRun | None:
        """Return a run that is stored, ``None`` for one that is not known."""
        ...

    async def begin(self, lease: Lease, new: NewRun, *, limit: int | None) -> BegunRun | None:
        """Take *lease* for a new run and store its input, or for an interrupted one of this id.

        An interrupted run of another id is closed as failed. *limit* is how many messages of the
        conversation are read. Returns ``None``, storing nothing, if another lease holds the
        conversation, or a run of this id has ended or is of another input or agent. A run of this
        id that can't be gone on with is closed, and ``None`` returned: look with ``find``.
        """
        ...

    async def resume(self, lease: Lease, *, limit: int | None) -> BegunRun | None:
        """Take *lease* for an interrupted run; ``None`` if it is none (any more)."""
        ...

    async def append(self, lease: Lease, message: Message) -> Message:
        """Store one step of the run; return it with its seq."""
        ...

    async def complete(self, lease: Lease, answer: Message, *, usage: Usage) -> Message:
        """Store the answer and end the run, which gives its conversation free."""
        ...

    async def close(self, lease: Lease, ending: Ending) -> None:
        """End the run without an answer; calls without a result get one that says so.

        Does nothing if *lease* holds the conversation no longer.
        """
        ...

    async def park(self, lease: Lease) -> None:
        """Give the lease back without ending the run, which is interrupted from now on.

        Does nothing if *lease* holds the conversation no longer.
        """
        ...

    async def renew(self, leases: list[Lease]) -> Renewal:
        """Extend *leases* from now on; tell which are lost, and whose run is to be cancelled."""
        ...

    async def is_free(self, user_id: str, session_id: str) -> bool:
        """Tell whether no live lease holds the conversation."""
        ...

    async def request_cancel(self, key: RunKey) -> bool:
        """Have a run cancelled by whoever works on it; return whether it was running."""
        ...

    async def interrupted(self, agent_id: str, *, limit: int, after: RunKey | None) -> list[RunKey]:
        """Return a page of the agent's runs whose lease has expired, in the order of keys."""
        ...
