"""The OpenAPI document: as accurate about errors as about answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from agno_sql.server.problems import PROBLEM_JSON, Problem

if TYPE_CHECKING:
    from fastapi import FastAPI

_SCHEMAS: Final = "#/components/schemas/"
_PROBLEM: Final = {"$ref": f"{_SCHEMAS}Problem"}
_MEANINGS: Final = {
    400: "Malformed: the body is no JSON",
    401: "No valid API key or token",
    403: "Not this user's, or not an administrator's",
    404: "The user has no such session or run",
    408: "The body did not arrive in time",
    409: "The conversation is busy, or the run_id has another message, failed or was cancelled",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "Something in the request breaks its rule",
    502: "The model's provider failed",
    503: "The database or the model can't be reached, or the server is overloaded or stops",
    504: "The model did not answer in time",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what an endpoint says of the problems it may answer with."""
    # A body may also be malformed or slow, where it may be too large.
    more = {400, 408} if HTTPStatus.REQUEST_ENTITY_TOO_LARGE in statuses else set()
    return {
        status: {"description": _MEANINGS[status], "content": {PROBLEM_JSON: {"schema": _PROBLEM}}}
        for status in sorted({*statuses, *more})
    }


def describe(app: FastAPI, *, is_authenticated: bool) -> None:
    """Make the document of *app* say how callers are known, and what a problem looks like."""
    original = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(original(), is_authenticated=is_authenticated)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's way to extend it


def _completed(document: dict[str, Any], *, is_authenticated: bool) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    own = Problem.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
    schemas |= own.pop("$defs")
    schemas["Problem"] = own
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's, in place of ours
        schemas.pop(unused, None)
    if is_authenticated:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in ("/healthz", "/readyz") else [{"bearer": []}]
    return document
