"""The application of the operator's pages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from agno_sql.server.admin import deeds, pages
from agno_sql.server.admin.visit import Visit
from agno_sql.server.auth.api_keys import ApiKeyAuth
from agno_sql.server.pages.files import policy
from agno_sql.server.problems import problem_of
from agno_sql.server.refusals import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from agno_sql.memory.api_keys import ApiKeys
    from agno_sql.server.auth.caller import Authenticator

    Handler = Callable[[Visit, pages.Shown], Awaitable[Response]]

_log: Final = logging.getLogger(__name__)
_HEADERS: Final = {
    "content-security-policy": policy("form-action 'self'"),
    # With no-referrer a browser would not say which page a form was posted from.
    "referrer-policy": "same-origin",
}


def mount_admin(app: FastAPI, shown: pages.Shown, auth: Sequence[Authenticator]) -> None:
    """Put the pages under ``/admin``, if administrators can log in or nobody has to.

    They log in by an API key: with tokens of users alone there are no pages.
    """
    keys = next((one.keys for one in auth if isinstance(one, ApiKeyAuth)), None)
    if auth and keys is None:
        return

    async def with_slash(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/admin/")

    app.add_route("/admin", with_slash, include_in_schema=False)
    app.mount("/admin", admin_app(shown, keys=keys))


def admin_app(shown: pages.Shown, *, keys: ApiKeys | None) -> ASGIApp:
    """Return the application; administrators log in by one of *keys*.

    Without *keys* nobody has to, as nobody has to for the API either.
    """

    def route(path: str, handler: Handler, *, posts: bool = False, is_open: bool = False) -> Route:
        async def answer(request: Request) -> Response:
            visit = Visit(request, keys)
            try:
                await visit.look_up()
                if not (visit.may_enter or is_open):
                    return visit.login()
                if request.method == "POST":
                    await visit.read_form()
                return await handler(visit, shown)
            except Exception as error:  # noqa: BLE001  (it becomes a page)
                problem = problem_of(error)
                return visit.page("problem.html", problem=problem, status=problem.status)

        return Route(path, answer, methods=["GET", "POST"] if posts else ["GET"])

    return Starlette(
        routes=[
            route("/", pages.overview),
            route("/users", pages.users),
            route("/user", pages.user),
            route("/session", pages.session),
            route("/runs", pages.runs),
            route("/clear", deeds.clear, posts=True),
            route("/erase", deeds.erase, posts=True),
            route("/clean-up", deeds.clean_up, posts=True),
            route("/login", _login, posts=True, is_open=True),
            route("/logout", _log_out, posts=True),
            route("/{path:path}", _nothing),
        ],
        middleware=[Middleware(_Headers)],
    )


async def _login(visit: Visit, _: pages.Shown) -> Response:
    if visit.keys is None:
        return visit.go_to("")
    where = visit.asked("next") or "/"
    if visit.request.method != "POST":
        return visit.page("login.html", is_wrong=False)
    token = await visit.keys.begin_session(visit.form.get("key", "").strip())
    if token is None:
        _log.warning("somebody tried to log in to the operator's pages with a wrong key")
        return visit.page("login.html", is_wrong=True, status=403)
    return visit.logged_in(token, where)


async def _log_out(visit: Visit, _: pages.Shown) -> Response:
    # Of a HEAD no form is read, so nothing tells whose page asks for it.
    return await visit.log_out() if visit.request.method == "POST" else visit.go_to("")


async def _nothing(_: Visit, __: pages.Shown) -> Response:
    raise NotFoundError("there is no such page")


class _Headers:
    """Puts the headers of these pages on whatever is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)
