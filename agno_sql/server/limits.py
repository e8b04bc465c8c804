"""How much a server takes on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from agno_sql.memory.limits import at_least, valid_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of what one process does for its clients.

    Args:
        body_bytes: The largest body of a request; a larger one is refused before it is read.
        body_timeout: How long a body may take to arrive.
        send_timeout: How long a client may leave a piece of its answer unread; then it is cut off.
        concurrency: How many requests are served at once, and how many runs are at work; what
            comes beyond is told to come again.

    Raises:
        InvalidOptionError: One is out of its bounds.
    """

    body_bytes: int = 1024 * 1024
    body_timeout: timedelta = timedelta(seconds=20)
    send_timeout: timedelta = timedelta(seconds=30)
    concurrency: int = 1000

    def __post_init__(self) -> None:
        at_least(1, self.body_bytes, "body_bytes")
        at_least(1, self.concurrency, "concurrency")
        for name in ("body_timeout", "send_timeout"):
            valid_duration(getattr(self, name), name, least=timedelta(seconds=0.1))
