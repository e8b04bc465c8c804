"""Runs on a memory that has no log for them: kept in this process, not resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from agno_sql.exchange import closing_results
from agno_sql.runs import BegunRun, Renewal, run_lost

if TYPE_CHECKING:
    from agno_sql.memory.protocol import Memory
    from agno_sql.memory.run_log import RunLog
    from agno_sql.message import Message, Usage
    from agno_sql.runs import Ending, Lease, NewRun, RunKey, StoredRun

# All agents of a memory share its log, or two of them would run one conversation at once. By id,
# as a memory need not be hashable; each log holds its memory, so the id can't be used again.
_logs: Final[WeakValueDictionary[int, VolatileRunLog]] = WeakValueDictionary()


def run_log_of(memory: Memory) -> RunLog:
    """Return the memory's own log, or a volatile one: one and the same for one memory."""
    # Not by isinstance: asking a protocol of it costs more than all else that begins a run.
    own: RunLog | None = getattr(memory, "run_log", None)
    return own if own is not None else _logs.setdefault(id(memory), VolatileRunLog(memory))


class VolatileRunLog:
    """A RunLog that stores messages in any Memory and knows only what runs in this process.

    A run that has ended is not known any more: its run_id runs again. Clearing the memory does not
    end a run.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._turns: dict[Lease, list[Message]] = {}
        self._to_cancel: set[RunKey] = set()

    async def find(self, key: RunKey) -> StoredRun | None:  # noqa: ARG002  (the protocol's)
        """Return ``None``: what has ended is not known."""
        return None

    async def begin(self, lease: Lease, new: NewRun, *, limit: int | None) -> BegunRun | None:  # noqa: ARG002
        """See RunLog.begin; *limit* is left to the window."""
        if any(held.key.conversation == lease.key.conversation for held in self._turns):
            return None
        self._turns[lease] = []
        # Read first: the memory may prune as soon as the input is stored.
        history = await self._memory.get_messages(
            lease.key.user_id, session_id=lease.key.session_id
        )
        return BegunRun([await self.append(lease, new.input)], history)

    async def resume(self, lease: Lease, *, limit: int | None) -> BegunRun | None:  # noqa: ARG002
        """Return ``None``: no run outlives its process."""
        return None

    async def append(self, lease: Lease, message: Message) -> Message:
        """See RunLog.append."""
        if lease not in self._turns:
            raise run_lost(lease.key)
        stored = await self._memory.add(message, lease.key.user_id, session_id=lease.key.session_id)
        self._turns[lease].append(stored)
        return stored

    async def complete(self, lease: Lease, answer: Message, *, usage: Usage) -> Message:  # noqa: ARG002
        """See RunLog.complete."""
        stored = await self.append(lease, answer)
        self._forget(lease)
        return stored

    async def close(self, lease: Lease, ending: Ending) -> None:
        """See RunLog.close."""
        turn = sorted(self._turns.get(lease, ()), key=lambda message: message.run_step or 0)
        try:
            if results := closing_results(turn, lease.key.run_id, ending.error_type):
                await self._memory.extend(
                    results, lease.key.user_id, session_id=lease.key.session_id
                )
        finally:
            self._forget(lease)

    async def park(self, lease: Lease) -> None:
        """End the run, as nobody could go on with it; what it has stored stays as it is."""
        self._forget(lease)

    async def renew(self, leases: list[Lease]) -> Renewal:
        """See RunLog.renew."""
        return Renewal(
            lost=frozenset(lease.token for lease in leases if lease not in self._turns),
            cancelled=frozenset(lease.token for lease in leases if lease.key in self._to_cancel),
        )

    async def is_free(self, user_id: str, session_id: str) -> bool:
        """See RunLog.is_free."""
        return all(lease.key.conversation != (user_id, session_id) for lease in self._turns)

    async def request_cancel(self, key: RunKey) -> bool:
        """See RunLog.request_cancel."""
        is_running = any(lease.key == key for lease in self._turns)
        if is_running:
            self._to_cancel.add(key)
        return is_running

    async def interrupted(
        self,
        agent_id: str,  # noqa: ARG002  (the protocol's)
        *,
        limit: int,  # noqa: ARG002
        after: RunKey | None,  # noqa: ARG002
    ) -> list[RunKey]:
        """Return nothing: no run outlives its process."""
        return []

    def _forget(self, lease: Lease) -> None:
        self._turns.pop(lease, None)
        self._to_cancel.discard(lease.key)
