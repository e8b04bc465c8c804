"""What a memory promises. Anyone can implement it; ``agno_sql.testing`` checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agno_sql.ids import DEFAULT_SESSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agno_sql.message import Message


class Memory(Protocol):
    """The conversations of any number of users.

    Safe for any number of concurrent tasks. A ``user_id`` of ``None`` is the user ``"default"``;
    an id that breaks the rules raises InvalidUserIdError or InvalidSessionIdError and changes
    nothing. No call sees or touches another user's messages, but for ``clear_all``.
    """

    async def add(
        self, message: Message, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION
    ) -> Message:
        """Store *message* at the end of the session; return it with ``seq`` and ``created_at``."""
        ...

    async def extend(
        self,
        messages: Iterable[Message],
        user_id: str | None = None,
        *,
        session_id: str = DEFAULT_SESSION,
    ) -> list[Message]:
        """Store *messages*, oldest first, at the end of the session: all of them or none.

        Concurrent calls for one session go one after another and never interleave. ``seq`` goes
        on from the last one without a gap. Afterwards the session holds at most the capacity.
        """
        ...

    async def get_messages(
        self,
        user_id: str | None = None,
        *,
        session_id: str = DEFAULT_SESSION,
        limit: int | None = None,
        before: int | None = None,
    ) -> list[Message]:
        """Return the newest *limit* messages (``None``: all that are kept), oldest first.

        With *before*, only messages whose seq is lower: the seq of the first message of one page
        is the ``before`` of the page in front of it.
        """
        ...

    async def clear(self, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION) -> None:
        """Delete the messages of one session; the next message goes on with the next seq."""
        ...

    async def clear_all(self) -> None:
        """Delete everything of every user; every session starts anew with seq 1."""
        ...

    async def size(self, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION) -> int:
        """Return how many messages the session holds; 0 for one that does not exist."""
        ...
