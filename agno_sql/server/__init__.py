"""An agent as a service over HTTP. Needs the extra ``server``.

``create_app`` makes an ASGI application of an agent, ``serve`` runs one until it is told to stop.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from agno_sql.errors import MissingExtraError

if TYPE_CHECKING:
    from agno_sql.server.a2a import A2A
    from agno_sql.server.app import create_app
    from agno_sql.server.auth.api_keys import ApiKeyAuth
    from agno_sql.server.auth.jwt import JWTAuth
    from agno_sql.server.limits import Limits
    from agno_sql.server.process import listen, serve

__all__ = ["A2A", "ApiKeyAuth", "JWTAuth", "Limits", "create_app", "listen", "serve"]

_HOMES: Final = {
    "A2A": "agno_sql.server.a2a",
    "ApiKeyAuth": "agno_sql.server.auth.api_keys",
    "JWTAuth": "agno_sql.server.auth.jwt",
    "Limits": "agno_sql.server.limits",
    "create_app": "agno_sql.server.app",
    "listen": "agno_sql.server.process",
    "serve": "agno_sql.server.process",
}
_OF_THE_EXTRA: Final = frozenset(
    {"fastapi", "starlette", "uvicorn", "jinja2", "jwt", "cryptography"}
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with MissingExtraError.unless("server", _OF_THE_EXTRA, purpose="the server"):
        return getattr(import_module(_HOMES[name]), name)
