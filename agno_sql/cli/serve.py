"""``agno-sql serve``: an agent as a service over HTTP."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import signal
import sys
import threading
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agno_sql import settings
from agno_sql.agent.agent import Agent
from agno_sql.cli.console import Misuse, note
from agno_sql.cli.model import chosen_model
from agno_sql.cli.text import one_line, safe
from agno_sql.errors import InvalidOptionError
from agno_sql.ids import shown
from agno_sql.memory.sql import SQLMemory
from agno_sql.models.demo import DemoModel
from agno_sql.server import A2A, ApiKeyAuth, JWTAuth, Limits, create_app, listen
from agno_sql.server import serve as serve_until_stopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import timedelta

    from agno_sql.server.auth.caller import Authenticator

AUTH_KINDS: Final = ("none", "api-keys", "jwt")
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the command line says: the agent, where it is served, and to whom."""

    target: str | None
    demo: bool
    url: str | None
    instructions: str | None
    host: str
    port: int
    auth: Sequence[str]
    jwt_key: Path | None
    jwt_issuer: str
    jwt_audience: str
    cors_origins: Sequence[str]
    max_body_bytes: int
    max_concurrency: int
    grace: timedelta
    a2a: bool
    a2a_url: str | None


def serve(asked: Serving) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    _check(asked)
    _log_lines()
    asyncio.run(_serve(asked))
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        # A plain function of a tool can't be interrupted, and Python would wait for it. Its run
        # is interrupted and goes on elsewhere.
        sys.stdout.flush()
        os._exit(0)


def _check(asked: Serving) -> None:
    kinds = set(asked.auth)
    if unknown := kinds - set(AUTH_KINDS):
        raise Misuse(f"--auth is one of {', '.join(AUTH_KINDS)}, not {one_line(min(unknown))}.")
    if "none" in kinds and len(kinds) > 1:
        raise Misuse("--auth none goes with no other.")
    if kinds == {"none"} and not _is_loopback(asked.host):
        raise Misuse(
            f"Without authentication the server is for this machine only, not for {one_line(asked.host)}: "
            "say --auth api-keys or --auth jwt, or --host 127.0.0.1."
        )
    if kinds == {"none"} and "*" in asked.cors_origins:
        raise Misuse(
            "Without authentication every page that a browser visits could read and erase "
            "everything: name the pages in --cors-origin, not *."
        )
    if asked.a2a_url is not None and not asked.a2a:
        raise Misuse("--a2a-url goes with --a2a.")
    if asked.a2a and asked.a2a_url is None and not _is_loopback(asked.host):
        raise Misuse("Other agents have to be told where they reach this one: say --a2a-url.")
    if asked.target is not None and (asked.demo or asked.url or asked.instructions):
        raise Misuse(
            "An agent of yours has a model, a memory and instructions of its own: leave out --demo, "
            "--database and --instructions."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(asked: Serving) -> None:
    async with _agent(asked) as agent:
        if isinstance(agent.memory, SQLMemory):
            await agent.memory.check()
        is_open = set(asked.auth) == {"none"}
        with listen(asked.host, asked.port) as listening:
            port = listening.getsockname()[1]
            host = f"[{asked.host}]" if ":" in asked.host else asked.host
            url = f"http://{host}:{port}"
            app = create_app(
                agent,
                auth=_authenticators(asked, agent),
                limits=Limits(body_bytes=asked.max_body_bytes, concurrency=asked.max_concurrency),
                grace=asked.grace,
                hosts=_LOOPBACK_NAMES if is_open else None,
                cors_origins=asked.cors_origins,
                a2a=A2A(url=asked.a2a_url or url) if asked.a2a else None,
            )
            told = f"{agent.name} ({agent.model.name}) is served at {url}"

            def say_ready() -> None:
                note(told + ("; without authentication, for this machine only" if is_open else ""))
                note(f"Chat in a browser: {url}/")

            # uvicorn stops in good order at SIGTERM and then raises it again, which would end the
            # process as if by accident. Until here it ends it, as nothing is at work.
            signal.signal(signal.SIGTERM, lambda *_: None)
            # What is loaded by now stays. To look through it again and again for garbage would be
            # a sixth of a turn's CPU.
            gc.collect()
            gc.freeze()
            await serve_until_stopped(app, listening, grace=asked.grace, ready=say_ready)


@asynccontextmanager
async def _agent(asked: Serving) -> AsyncIterator[Agent]:
    if asked.target is not None:
        async with _own_agent(asked.target) as agent:
            yield agent
        return
    if not asked.demo and not settings.has_openai():
        raise InvalidOptionError(
            "no model: set OPENAI_API_KEY, or OPENAI_BASE_URL for a compatible server; or say "
            "--demo for the offline demo model, or name an agent of yours: module:agent"
        )
    async with SQLMemory.open(asked.url or settings.database_url()) as memory:
        yield Agent(
            name="assistant",
            model=DemoModel() if asked.demo else chosen_model(),
            memory=memory,
            instructions=asked.instructions or "",
        )


@asynccontextmanager
async def _own_agent(target: str) -> AsyncIterator[Agent]:
    found = _found(target)
    if isinstance(found, Agent):
        yield found
        return
    opened = found() if callable(found) else None
    if not isinstance(opened, AbstractAsyncContextManager):
        raise _no_agent(target, found)
    async with opened as agent:
        if not isinstance(agent, Agent):
            raise _no_agent(target, agent)
        yield agent


def _found(target: str) -> object:
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise Misuse(f"Name the agent as module:agent, not {one_line(target)}.")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name != module_name:
            raise
        raise InvalidOptionError(f"there is no module {shown(module_name)} here") from missing
    if not hasattr(module, name):
        raise InvalidOptionError(f"module {module_name} has no {shown(name)}")
    return getattr(module, name)


def _no_agent(target: str, found: object) -> InvalidOptionError:
    return InvalidOptionError(
        f"{target} must be an Agent, or a function that opens one: an @asynccontextmanager that "
        f"yields it; got {shown(found)}"
    )


def _authenticators(asked: Serving, agent: Agent) -> list[Authenticator]:
    found: list[Authenticator] = []
    if "api-keys" in asked.auth and isinstance(agent.memory, SQLMemory):
        found.append(ApiKeyAuth(agent.memory.api_keys))
    if "jwt" in asked.auth:
        found.append(_jwt(asked))
    return found


def _jwt(asked: Serving) -> JWTAuth:
    checked = {"issuer": asked.jwt_issuer, "audience": asked.jwt_audience}
    secret = settings.jwt_secret()
    if (secret is None) == (asked.jwt_key is None):
        raise InvalidOptionError(
            "--auth jwt takes one key: a public one in --jwt-key, or AGNO_SQL_JWT_SECRET"
        )
    if asked.jwt_key is None:
        return JWTAuth.of_secret(secret or "", **checked)
    return JWTAuth.of_key_file(asked.jwt_key.read_text("utf-8"), **checked)


class _OneLine(logging.Formatter):
    """Keeps a message on its line, and errors indented: no client can forge another one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {safe(line)}" for line in lines)


def _log_lines() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("agno_sql").setLevel(logging.INFO)
    # A client's mistake is no news, and the SDK would tell each with its stack trace.
    logging.getLogger("a2a").setLevel(logging.CRITICAL)
