"""The routes of A2A: the SDK's, behind the server's authentication.

They are not in the OpenAPI document: the agent card and the protocol describe them.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from a2a.server.jsonrpc_models import InvalidParamsError, JSONParseError
from a2a.server.request_handlers.response_helpers import build_error_response
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import INTERNAL_ERROR_CODE
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import InvalidRequestError
from starlette.responses import JSONResponse
from starlette.routing import Route

from agno_sql.server.a2a.card import PATH, card_of
from agno_sql.server.a2a.handler import Tasks
from agno_sql.server.a2a.owner import owner_of
from agno_sql.server.lifecycle import PARK_WITHIN_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from a2a.server.context import ServerCallContext
    from starlette.requests import Request
    from starlette.responses import Response

    from agno_sql.server.a2a import A2A
    from agno_sql.server.served import Served


def make(served: Served, options: A2A, *, grace: timedelta) -> list[Route]:
    """Return the routes: the agent card, JSON-RPC (1.0 and 0.3), and REST (1.0)."""
    tasks, contexts = Tasks(served), _Contexts()
    # Streams end with their runs, which a server that stops ends within this time.
    grace_s = grace.total_seconds() + PARK_WITHIN_S
    rpc = create_jsonrpc_routes(
        tasks, PATH, contexts, enable_v0_3_compat=True, shutdown_grace_period=grace_s
    )
    rest = create_rest_routes(tasks, contexts, path_prefix=PATH, shutdown_grace_period=grace_s)
    card = card_of(served.agent.name, options, is_authenticated=bool(served.auth))
    return [
        *create_agent_card_routes(card),
        *(_guarded(route, served, _rpc_refusal) for route in rpc),
        # Without those of tenants in the path, which is a mount: the token names the user.
        *(_guarded(route, served, _rest_refusal) for route in rest if isinstance(route, Route)),
    ]


class _Contexts(DefaultServerCallContextBuilder):
    def build(self, request: Request) -> ServerCallContext:
        context = super().build(request)
        context.state["request"] = request
        return context


def _guarded(route: Route, served: Served, refusal: Callable[[Response | None], Response]) -> Route:
    """Return *route* for callers who are known, and bodies that can be read."""
    endpoint: Callable[[Request], Awaitable[Response]] = route.endpoint

    async def guarded(request: Request) -> Response:
        request.state.owner = await owner_of(request, served.auth)
        request.state.is_read = False
        if not _is_readable(await request.body()):
            return refusal(None)
        response = await endpoint(request)
        # What the SDK can't read it may take for an error of its own.
        is_failed = not request.state.is_read and _is_failure(response)
        return refusal(response) if is_failed else response

    return Route(route.path, guarded, methods=list(route.methods or ()))


def _is_readable(body: bytes) -> bool:
    """Tell whether *body* is empty or JSON, of UTF-8 that can be written again."""
    try:
        if body:
            json.dumps(json.loads(body.decode()), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _is_failure(response: Response) -> bool:
    is_internal = _rpc_error(response).get("code") == INTERNAL_ERROR_CODE
    return is_internal or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR


def _rpc_error(response: Response) -> dict[str, Any]:
    if not isinstance(response, JSONResponse):
        return {}
    told = json.loads(bytes(response.body))
    error = told.get("error") if isinstance(told, dict) else None
    return error if isinstance(error, dict) else {}


def _rpc_refusal(response: Response | None) -> Response:
    if response is None:
        return JSONResponse(build_error_response(None, JSONParseError()))
    request_id = json.loads(bytes(response.body))["id"]
    return JSONResponse(build_error_response(request_id, InvalidParamsError()))


def _rest_refusal(_: Response | None) -> Response:
    payload = build_rest_error_payload(InvalidRequestError("the request can't be read"))
    return JSONResponse(payload, status_code=400)
