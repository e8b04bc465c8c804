"""The chat page at ``/``, and the files of all pages at ``/static``.

The page talks to the agent by the HTTP API alone, so it can do nothing that its user could not.
"""

from __future__ import annotations

from html import escape
from string import Template
from typing import TYPE_CHECKING

from agno_sql.server.pages.files import FOLDER, File, static_files
from agno_sql.server.refusals import NotFoundError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response


def add_chat_page(
    app: FastAPI, *, agent_name: str, is_authenticated: bool, most_bytes: int
) -> None:
    """Serve the page; it asks its user for a token if callers of *app* are authenticated.

    If they are not, whoever sees it may see the operator's pages too, and finds a link to them.

    What would take more than *most_bytes* it does not send: a browser whose server stops to read
    in the middle of a body can't tell that from a lost connection.
    """
    html = Template((FOLDER / "chat.html").read_text("utf-8")).substitute(
        agent=escape(agent_name),
        auth="token" if is_authenticated else "none",
        most_bytes=most_bytes,
        operator="hidden" if is_authenticated else "",
    )
    page, files = File.of(html, ".html"), static_files()

    async def show(request: Request) -> Response:
        return page.response(request)

    async def load(request: Request) -> Response:
        file = files.get(request.path_params["path"])
        if file is None:
            raise NotFoundError("there is no such file")
        return file.response(request)

    app.add_route("/", show, include_in_schema=False)
    app.add_route("/static/{path:path}", load, include_in_schema=False)
