"""A process that serves an application until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from fastapi import FastAPI

    from agno_sql.server.lifecycle import Lifecycle

_SLOW_CLIENTS_S: Final = 20
# Longer than nginx and the load balancers of clouds keep an idle connection, which is 60 s: who
# sends the requests has to close first. Else one is sent just as its connection is closed, and is
# lost without an answer.
_KEEP_ALIVE_S: Final = 75
_BACKLOG: Final = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on *host*, a name, an IPv4 or an IPv6 address.

    Raises:
        OSError: It can't.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small packets at once only where a socket says that it is TCP: without it each
    # answer would wait 40 ms for the client's kernel.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


async def serve(
    app: FastAPI, listening: socket.socket, *, grace: timedelta, ready: Callable[[], object]
) -> None:
    """Serve *app* on *listening* until SIGTERM or SIGINT; *ready* is called when it is served.

    Then no more requests are taken, and those at work are answered: with what came out within the
    *grace* of *app*, or with what says that their run is interrupted.
    """
    config = uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_S,
        # Runs end by themselves; this cuts off clients that do not read their answers.
        timeout_graceful_shutdown=int(grace.total_seconds()) + _SLOW_CLIENTS_S,
    )
    await _Server(config, app.state.lifecycle, ready).serve(sockets=[listening])


class _Server(uvicorn.Server):
    """Begins to stop the application as soon as it is told, not when all clients are gone."""

    def __init__(
        self, config: uvicorn.Config, lifecycle: Lifecycle, ready: Callable[[], object]
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and end what is at work meanwhile."""
        stopping = asyncio.create_task(self._lifecycle.stop())
        await super().shutdown(sockets=sockets)
        await stopping
