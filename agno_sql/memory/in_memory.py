"""A memory without a database: for tests and throw-away agents, and the model of the SQL one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agno_sql.clock import SystemClock
from agno_sql.exchange import newest_exchange
from agno_sql.ids import DEFAULT_SESSION, conversation_key
from agno_sql.memory.limits import at_least, valid_capacity
from agno_sql.message import checked_messages, numbered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agno_sql.clock import Clock
    from agno_sql.message import Message


@dataclass(slots=True)
class _Conversation:
    last_seq: int = 0
    messages: list[Message] = field(default_factory=list)


class InMemory:
    """A Memory that lives as long as its process.

    Fulfils the same promises as SQLMemory but those that need a database: nothing survives a
    restart. No method waits, so each is atomic among the tasks of an event loop.

    Args:
        capacity: How many messages a user's session keeps, at least 1; ``None`` keeps all.
        clock: Where created_at comes from.
    """

    def __init__(self, capacity: int | None = 100, *, clock: Clock | None = None) -> None:
        self._capacity = valid_capacity(capacity)
        self._clock = clock or SystemClock()
        self._conversations: dict[tuple[str, str], _Conversation] = {}

    async def add(
        self, message: Message, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION
    ) -> Message:
        """See Memory.add."""
        (stored,) = await self.extend([message], user_id, session_id=session_id)
        return stored

    async def extend(
        self,
        messages: Iterable[Message],
        user_id: str | None = None,
        *,
        session_id: str = DEFAULT_SESSION,
    ) -> list[Message]:
        """See Memory.extend."""
        key = conversation_key(user_id, session_id)
        new = checked_messages(messages)
        if not new:
            return []
        conversation = self._conversations.setdefault(key, _Conversation())
        conversation.last_seq += len(new)
        stored = numbered(new, last_seq=conversation.last_seq, at=self._clock.now())
        conversation.messages += stored
        if self._capacity is not None:
            conversation.messages = _pruned(conversation.messages, self._capacity)
        return stored

    async def get_messages(
        self,
        user_id: str | None = None,
        *,
        session_id: str = DEFAULT_SESSION,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[Message]:
        """See Memory.get_messages."""
        found = self._messages(user_id, session_id)
        if before is not None:
            before = at_least(0, before, "before")
            found = [message for message in found if (message.seq or 0) < before]
        if limit is not None:
            found = found[max(0, len(found) - at_least(0, limit, "limit")) :]
        return list(found)

    async def clear(self, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION) -> None:
        """See Memory.clear."""
        self._messages(user_id, session_id).clear()

    async def clear_all(self) -> None:
        """See Memory.clear_all."""
        self._conversations.clear()

    async def size(self, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION) -> int:
        """See Memory.size."""
        return len(self._messages(user_id, session_id))

    def _messages(self, user_id: str | None, session_id: str) -> list[Message]:
        conversation = self._conversations.get(conversation_key(user_id, session_id))
        return [] if conversation is None else conversation.messages


def _pruned(messages: list[Message], capacity: int) -> list[Message]:
    """Return *messages* without the prefix of non-system ones that goes beyond *capacity*."""
    excess = len(messages) - capacity
    if excess <= 0:
        return messages
    newest = len(messages) - 1
    start = newest_exchange(messages)
    protected = newest if start is None else start
    others = [index for index, m in enumerate(messages) if m.role != "system"]
    kept = next(
        (index for index in others[excess:] if messages[index].role != "tool"), len(messages)
    )
    if messages[newest].role != "system":
        kept = min(kept, protected)
    return [m for index, m in enumerate(messages) if index >= kept or m.role == "system"]
