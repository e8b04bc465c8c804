"""The application: an agent behind HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from agno_sql.errors import AgnoSQLError, InvalidOptionError
from agno_sql.ids import shown
from agno_sql.memory.limits import valid_duration
from agno_sql.memory.sql import SQLMemory
from agno_sql.server import chat, health, runs, sessions, users
from agno_sql.server.a2a import A2A, a2a_routes
from agno_sql.server.admin.app import mount_admin
from agno_sql.server.admin.pages import Shown
from agno_sql.server.admin.recent import RecentStatistics
from agno_sql.server.gate import Gate
from agno_sql.server.lifecycle import Lifecycle
from agno_sql.server.limits import Limits
from agno_sql.server.ongoing import OngoingRuns
from agno_sql.server.openapi import describe
from agno_sql.server.pages.chat import add_chat_page
from agno_sql.server.problems import invalid_request, problem_response
from agno_sql.server.refusals import (
    MalformedError,
    MethodNotAllowedError,
    NotFoundError,
    RefusalError,
)
from agno_sql.server.served import Served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from agno_sql.agent.agent import Agent
    from agno_sql.server.auth.caller import Authenticator

_ABOUT: Final = "Durable conversations with an AI agent, for any number of users."


def create_app(  # noqa: PLR0913  (an application has that many parts, all by keyword)
    agent: Agent,
    *,
    auth: Sequence[Authenticator] = (),
    limits: Limits | None = None,
    grace: timedelta = timedelta(seconds=20),
    hosts: Collection[str] | None = None,
    cors_origins: Collection[str] = (),
    a2a: A2A | None = None,
) -> FastAPI:
    """Return an ASGI application that serves *agent*, whose memory is an SQLMemory.

    At its root is a chat page for browsers, which uses nothing but the API beside it.

    Its lifespan recovers interrupted runs, at the start and then every lease, and ends what is at
    work. A host that mounts the application has to run that: ``app.router.lifespan_context(app)``.

    Args:
        agent: Whom the users talk to.
        auth: What recognises callers, the first that does; without any, everybody may do
            everything, so let nobody in who may not.
        limits: How much it takes on.
        grace: How long runs may go on when it stops, before they are interrupted.
        hosts: Which hosts it answers for, without their ports; ``None`` answers for all.
        cors_origins: Which web pages may call it from a browser.
        a2a: Serves other agents too, by A2A under ``/a2a``; needs the extra ``a2a``.

    Raises:
        InvalidOptionError: Another memory, or a *grace* that is no duration.
        MissingExtraError: *a2a* without its extra.
    """
    if not isinstance(agent.memory, SQLMemory):
        raise InvalidOptionError(
            f"the server needs an agent with an SQLMemory, got {shown(agent.memory)}"
        )
    limits = limits or Limits()
    ongoing = OngoingRuns(agent, at_most=limits.concurrency)
    lifecycle = Lifecycle(agent, ongoing, grace=valid_duration(grace, "grace"))
    statistics = RecentStatistics(agent.memory.operator)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with lifecycle.running():
            yield
        await statistics.stop()

    app = FastAPI(
        title=agent.name,
        description=_ABOUT,
        version=version("agno-sql"),
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's pages load their scripts from another host
        redoc_url=None,
    )
    app.state.served = Served(agent=agent, memory=agent.memory, ongoing=ongoing, auth=tuple(auth))
    app.state.lifecycle = lifecycle
    mount_admin(app, Shown(agent, agent.memory, statistics), auth)
    for part in (chat, sessions, runs, users, health):
        app.include_router(part.router)
    if a2a is not None:
        app.router.routes.extend(a2a_routes(app.state.served, a2a, grace=grace))
    add_chat_page(
        app,
        agent_name=agent.name,
        is_authenticated=bool(auth),
        most_bytes=limits.body_bytes,
    )
    _handle_errors(app)
    describe(app, is_authenticated=bool(auth))
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "idempotency-key", "a2a-version"],
        )
    app.add_middleware(Gate, limits=limits, hosts=hosts)
    return app


def _handle_errors(app: FastAPI) -> None:
    async def own(_: Request, error: Exception) -> Response:
        return problem_response(error)

    async def invalid(_: Request, error: Exception) -> Response:
        return invalid_request(error.errors() if isinstance(error, RequestValidationError) else ())

    async def of_starlette(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        response = problem_response(_OF_STATUS.get(status, MalformedError("a malformed request")))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            # Starlette names the methods of the first route only.
            told = (getattr(error, "headers", None) or {}).get("Allow", "GET")
            response.headers["allow"] = ", ".join(_methods(app, request)) or told
        return response

    app.add_exception_handler(AgnoSQLError, own)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_starlette)


def _methods(app: FastAPI, request: Request) -> list[str]:
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return sorted(method.upper() for method in app.openapi()["paths"].get(path, ()))


_OF_STATUS: Final[dict[int, RefusalError]] = {
    404: NotFoundError("there is nothing at this path"),
    405: MethodNotAllowedError("there is no such method at this path"),
}
