"""A TCP proxy on 127.0.0.1 that does to its connections what a broken network does."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_CHUNK: Final = 65536
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds


class Fate(Enum):
    """What becomes of a piece of what a client sends, and of its connection."""

    FORWARD = auto()
    CUT_BEFORE = auto()
    """The server never gets it; both ends are reset."""

    CUT_BEFORE_ANSWER = auto()
    """The server answers it, which the client never gets; both ends are reset."""

    CUT_AFTER_ANSWER = auto()
    """The client gets the answer, and nothing more."""

    SILENT_BEFORE = auto()
    """From this piece on nothing is passed on any more, on any connection, until ``heal``."""

    SILENT_BEFORE_ANSWER = auto()
    """The server gets it; its answer is the first that is not passed on any more."""


@dataclass(eq=False)
class _Link:
    """One connection from a client through the proxy."""

    from_client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    from_server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    fate: Fate = Fate.FORWARD

    def cut(self) -> None:
        """Reset both ends."""
        for writer in (self.to_client, self.to_server):
            end = writer.get_extra_info("socket")
            with suppress(OSError):  # it is closed already
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            writer.transport.abort()


@dataclass
class TcpProxy:
    """Listens on ``port`` and passes on to a server; made by ``proxy_to``.

    ``on_request`` is shown each piece of what a client sends and decides its fate. Each piece waits
    ``delay_s`` before it is passed on. ``accepted`` counts the connections it ever had.
    """

    host: str
    server_port: int
    port: int
    delay_s: float = 0.0
    on_request: Callable[[bytes], Fate] | None = None
    accepted: int = 0
    _passes: asyncio.Event = field(default_factory=asyncio.Event)
    _listener: asyncio.Server | None = None
    _links: set[_Link] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def cut(self) -> None:
        """Reset all connections; new ones are accepted."""
        for link in tuple(self._links):
            link.cut()

    def refuse(self) -> None:
        """Refuse new connections until ``accept``."""
        assert self._listener is not None
        self._listener.close()
        self._listener = None

    async def accept(self) -> None:
        """Accept connections, as it does from the beginning."""
        self._listener = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, reuse_port=True
        )

    def blackhole(self) -> None:
        """Pass nothing on any more; connections stay, and new ones are still accepted."""
        self._passes.clear()

    def heal(self) -> None:
        """Pass on again, first what has been held back: so do the senders' kernels."""
        self._passes.set()

    async def stop(self) -> None:
        """Reset all connections and accept no more."""
        if self._listener is not None:
            self.refuse()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(self.host, self.server_port)
        except OSError:
            to_client.transport.abort()
            return
        link = _Link(from_client, to_client, from_server, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(self._requests(link), self._answers(link))
        finally:
            self._links.discard(link)

    async def _requests(self, link: _Link) -> None:
        with suppress(OSError):
            while data := await link.from_client.read(_CHUNK):
                link.fate = self.on_request(data) if self.on_request else Fate.FORWARD
                if link.fate is Fate.CUT_BEFORE:
                    link.cut()
                    return
                if link.fate is Fate.SILENT_BEFORE:
                    self.blackhole()
                await self._pass_on(data, link.to_server)
        link.to_server.close()

    async def _answers(self, link: _Link) -> None:
        with suppress(OSError):
            while data := await link.from_server.read(_CHUNK):
                if link.fate is Fate.CUT_BEFORE_ANSWER:
                    link.cut()
                    return
                if link.fate is Fate.SILENT_BEFORE_ANSWER:
                    self.blackhole()
                await self._pass_on(data, link.to_client)
                if link.fate is Fate.CUT_AFTER_ANSWER:
                    # Closed, not reset: a reset could overtake the answer.
                    break
        link.to_client.close()

    async def _pass_on(self, data: bytes, to: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self._passes.wait()
        to.write(data)
        await to.drain()


@asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[TcpProxy]:
    """Run a proxy to *port* of *host* in this event loop."""
    # Bound but not listening: it keeps the port ours while the proxy refuses.
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        proxy = TcpProxy(host, port, holder.getsockname()[1])
        proxy.heal()
        await proxy.accept()
        try:
            yield proxy
        finally:
            await proxy.stop()


@asynccontextmanager
async def behind_proxy(url: str) -> AsyncIterator[tuple[TcpProxy, str]]:
    """Run a proxy to the server of the database at *url*; yield it, and the URL that goes through."""
    server = make_url(url)
    async with proxy_to(server.host or "127.0.0.1", server.port or 5432) as proxy:
        through = server.set(host="127.0.0.1", port=proxy.port)
        yield proxy, through.render_as_string(hide_password=False)
