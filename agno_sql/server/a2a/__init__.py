"""An agent for other agents: the A2A protocol. Needs the extra ``a2a``.

What needs the SDK is imported when a server is told to speak it: that takes a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agno_sql.errors import InvalidOptionError, MissingExtraError
from agno_sql.ids import shown

if TYPE_CHECKING:
    from datetime import timedelta

    from starlette.routing import Route

    from agno_sql.server.served import Served

_OF_THE_EXTRA: Final = frozenset({"a2a", "google", "jsonrpc", "sse_starlette"})


@dataclass(frozen=True, slots=True, kw_only=True)
class A2A:
    """How an agent presents itself to other agents.

    Args:
        url: Where they reach the application from outside, ``https://agent.example.com``.
        description: What the agent can do for them, on its card.

    Raises:
        InvalidOptionError: The *url* is none of HTTP, or has more than a path.
    """

    url: str
    description: str = ""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_good = False
        if not is_good or parts.query or parts.fragment or parts.username is not None:
            raise InvalidOptionError(
                f"the url of A2A must be like https://agent.example.com, got {shown(self.url)}"
            )


def a2a_routes(served: Served, options: A2A, *, grace: timedelta) -> list[Route]:
    """Return the routes that serve the agent by A2A.

    *grace* is how long the server's runs go on when it stops; streams are ended with them.

    Raises:
        MissingExtraError: The extra is not installed; names the command.
    """
    with MissingExtraError.unless("a2a", _OF_THE_EXTRA, purpose="A2A"):
        routes = import_module("agno_sql.server.a2a.routes")
    made: list[Route] = routes.make(served, options, grace=grace)
    return made
