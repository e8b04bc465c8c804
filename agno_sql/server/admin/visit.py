"""One request to the operator's pages: who it is from, what it asks, and how it is answered."""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.responses import HTMLResponse, RedirectResponse, Response

from agno_sql.memory.api_keys import SESSION_LASTS
from agno_sql.server.admin.rendering import rendered
from agno_sql.server.refusals import ForbiddenError, MalformedError

if TYPE_CHECKING:
    from typing import Any

    from starlette.requests import Request

    from agno_sql.api_key import ApiKey
    from agno_sql.memory.api_keys import ApiKeys

_COOKIE: Final = "agno_sql_admin"
_NOTICE: Final = "agno_sql_notice"
_TOKEN: Final = re.compile("[A-Za-z0-9_-]{43}", re.ASCII)
# One of our pages, with its query: it leads nowhere else.
_PLACE: Final = re.compile(r"/[a-z-]*(\?[!-~]*)?")
# What browsers leave as it is in the path of an address, but for the end of a cookie's path.
_PLAIN: Final = "/!$&'()*+,:=@"
_MOST_FIELDS: Final = 20
_PORTS: Final = {"http": 80, "https": 443}


class Visit:
    """A request, and the browser it is from.

    Each browser holds a random token in a cookie. Logging in replaces it by the token of a session;
    what proves that a form is ours is derived from it, so it fits no other browser and no other
    session. Without *keys* nobody has to log in.
    """

    def __init__(self, request: Request, keys: ApiKeys | None) -> None:
        self.request = request
        self.keys = keys
        self.key: ApiKey | None = None
        self.form: dict[str, str] = {}
        # As it stands in addresses: browsers compare the path of a cookie with that, letter by letter.
        self._base = quote(request.scope.get("root_path", ""), safe=_PLAIN)
        self.root = self._base.removesuffix("/admin")  # where the chat page and all files are
        self._host = request.headers.get("host", "")
        self._origin = request.headers.get("origin", "")
        sent = request.cookies.get(_COOKIE, "")
        self._is_new = _TOKEN.fullmatch(sent) is None
        self._token = secrets.token_urlsafe(32) if self._is_new else sent
        self._notice: str | None = None

    async def look_up(self) -> None:
        """Find out who is logged in."""
        if self.keys is not None and not self._is_new:
            self.key = await self.keys.key_of_session(self._token)

    @property
    def may_enter(self) -> bool:
        """Whether the pages may be shown."""
        return self.keys is None or self.key is not None

    @property
    def who(self) -> str:
        """Who it is from, for the log."""
        return "an operator" if self.key is None else f"the operator with key {self.key.id}"

    @property
    def csrf(self) -> str:
        """What a form of this browser has to carry."""
        return self._mac("csrf")

    async def read_form(self) -> None:
        """Read what was posted, and refuse what does not come from a form of ours.

        Raises:
            ForbiddenError: Another page sent it, or a form of another session.
            MalformedError: It is no form.
        """
        if not self._is_from_our_page():
            raise ForbiddenError("this form was sent by another page")
        try:
            fields = parse_qsl(
                (await self.request.body()).decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MOST_FIELDS,
            )
        except ValueError:
            raise MalformedError("the body is no form") from None
        self.form = dict(fields)
        if not hmac.compare_digest(self.form.get("csrf", "").encode(), self.csrf.encode()):
            raise ForbiddenError("this form is of an older session: load the page again")

    def asked(self, name: str) -> str | None:
        """Return a parameter of the address; ``None`` if it is missing or empty."""
        return self.request.query_params.get(name) or None

    def url(self, page: str, **parameters: object) -> str:
        """Return the address of one of our pages, for any ids in the *parameters*."""
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        return f"{self._base}/{page}" + (f"?{query}" if query else "")

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page that shows *values*."""
        notice = self._take_notice()
        html = rendered(template, visit=self, url=self.url, notice=notice, **values)
        response = HTMLResponse(html, status_code=status)
        if notice is not None:
            response.delete_cookie(_NOTICE, path=self._base, httponly=True, samesite="strict")
        if self._is_new:
            self._set_cookie(response, _COOKIE, self._token)
        return response

    def go_to(self, page: str, *, notice: str | None = None, **parameters: object) -> Response:
        """Return what leads to one of our pages, which says *notice* first."""
        response = RedirectResponse(self.url(page, **parameters), status_code=303)
        if notice is not None:
            text = urlsafe_b64encode(notice.encode()).decode().rstrip("=")
            self._set_cookie(response, _NOTICE, f"{text}.{self._mac(f'notice:{text}')}", max_age=60)
        return response

    def logged_in(self, token: str, where: str) -> Response:
        """Return what leads on from the login page to *where*, an address below ours."""
        place = where if _PLACE.fullmatch(where) else "/"
        response = RedirectResponse(self._base + place, status_code=303)
        lasts = int(SESSION_LASTS.total_seconds())
        self._set_cookie(response, _COOKIE, token, max_age=lasts)
        return response

    async def log_out(self) -> Response:
        """End the session; the browser gets another token with the next page."""
        if self.keys is not None:
            await self.keys.end_session(self._token)
        response = self.go_to("login")
        response.delete_cookie(_COOKIE, path=self._base, httponly=True, samesite="strict")
        return response

    def login(self) -> Response:
        """Return what leads to the login page and from there back here."""
        path = self.request.scope["path"].removeprefix(self.request.scope.get("root_path", ""))
        query = self.request.url.query
        here = f"{path}?{query}" if query else path
        return self.go_to("login", next=None if self.request.method == "POST" else here)

    def _take_notice(self) -> str | None:
        text, _, mac = self.request.cookies.get(_NOTICE, "").partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(f"notice:{text}").encode()):
            return None
        return urlsafe_b64decode(f"{text}==").decode()

    def _set_cookie(
        self, response: Response, name: str, value: str, *, max_age: int | None = None
    ) -> None:
        response.set_cookie(
            name,
            value,
            max_age=max_age,
            path=self._base,
            # A proxy ends TLS unseen, but the browser says how it reached the page it posts from.
            secure=self._origin.startswith("https:") or self.request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def _is_from_our_page(self) -> bool:
        """Tell whether the browser says so; one that says nothing is not believed."""
        if self.request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        # A proxy that ends TLS is not seen here: the scheme is what the browser says it is.
        scheme, _, _ = self._origin.partition("://")
        origin = _place(self._origin)
        return origin is not None and origin == _place(f"{scheme}://{self._host}")

    def _mac(self, text: str) -> str:
        return hmac.digest(self._token.encode(), text.encode(), sha256).hex()


def _place(origin: str) -> tuple[str, int] | None:
    """Return host and port of an origin of the web; ``None`` for what is none."""
    try:
        parts = urlsplit(origin)
        default = _PORTS[parts.scheme]
        port = parts.port or default
    except (ValueError, KeyError):
        return None
    return (parts.hostname, port) if parts.hostname else None
