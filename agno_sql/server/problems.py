"""Errors as RFC 9457 problem details. What an error means for HTTP is decided here alone."""

from __future__ import annotations

import logging
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel
from starlette.responses import Response

from agno_sql import errors
from agno_sql.message import encodable
from agno_sql.server import refusals

if TYPE_CHECKING:
    from collections.abc import Iterable

_log: Final = logging.getLogger(__name__)

PROBLEM_JSON: Final = "application/problem+json"
_MOST_FIELD_ERRORS: Final = 20
_MOST_DETAIL_CHARACTERS: Final = 500
_MOST_FIELD_CHARACTERS: Final = 100

_ASK_AGAIN: Final = "ask again, with the same run_id, to learn what became of the run"
# The status of each error, and what a client is told; None tells its own message, which then holds
# nothing but what the client has sent or may know. Of two that fit, the closer class counts.
ANSWERS: Final[dict[type[errors.AgnoSQLError], tuple[int, str | None]]] = {
    errors.AgnoSQLError: (500, "something went wrong in the server"),
    errors.InvalidInputError: (422, None),
    errors.RunIdReusedError: (409, None),
    errors.StoreError: (503, f"the database refused; {_ASK_AGAIN}"),
    errors.StoreUnavailableError: (503, f"the database can't be reached; {_ASK_AGAIN}"),
    errors.CorruptRecordError: (500, "a stored row can't be decoded"),
    errors.SchemaOutOfDateError: (503, "the database's tables are not of this version"),
    errors.ModelError: (502, "the model's provider failed"),
    errors.ModelUnavailableError: (503, "the model's provider can't be reached"),
    errors.ModelTimeoutError: (504, "the model's provider did not answer in time"),
    errors.RateLimitError: (503, "the model's provider asks for a pause"),
    errors.ModelAuthenticationError: (502, "the model's provider does not accept this server"),
    errors.ModelRequestError: (502, "the model's provider found the request wrong"),
    errors.ContextTooLongError: (502, "the conversation does not fit into the model's context"),
    errors.ContentFilterError: (502, "the provider's content filter stopped it"),
    errors.BadReplyError: (502, "the model's provider gave no usable reply"),
    errors.RunError: (500, "the run ended without an answer"),
    errors.MaxLoopsError: (502, "the model kept calling tools"),
    errors.RunTimeoutError: (504, "the run took too long"),
    errors.ConversationBusyError: (409, None),
    errors.RunLostError: (409, None),
    errors.RunInterruptedError: (503, f"the server stops; {_ASK_AGAIN}"),
    errors.RunFailedError: (409, "the run of this run_id failed before; use another run_id"),
    errors.RunCancelledError: (409, None),
    errors.RejectedError: (422, None),
    errors.InputRejectedError: (422, None),
    errors.OutputRejectedError: (502, "the answer was rejected"),
    refusals.RefusalError: (400, None),
    refusals.UnauthenticatedError: (401, None),
    refusals.ForbiddenError: (403, None),
    refusals.NotFoundError: (404, None),
    refusals.MethodNotAllowedError: (405, None),
    refusals.SlowBodyError: (408, None),
    refusals.BodyTooLargeError: (413, None),
    refusals.MediaTypeError: (415, None),
    refusals.UnknownHostError: (421, None),
    refusals.OverloadedError: (503, None),
    refusals.StoppingError: (503, None),
}


class FieldProblem(BaseModel):
    """What is wrong with one field of the request."""

    field: str
    detail: str


class Problem(BaseModel):
    """Problem details (RFC 9457): `code` is stable, `detail` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    """Whether the same request may succeed later."""
    run_id: str | None = None
    errors: list[FieldProblem] | None = None


def problem_of(
    error: Exception,
    *,
    run_id: str | None = None,
    fields: list[FieldProblem] | None = None,
) -> Problem:
    """Return what a client is told of *error*; what it is not told goes into the log."""
    if not isinstance(error, errors.AgnoSQLError):
        _log.error("a request failed", exc_info=error)
        error = errors.AgnoSQLError()
    kind = next(kind for kind in type(error).__mro__ if kind in ANSWERS)
    status, told = ANSWERS[kind]
    if told is not None and error.args:
        _log.warning("%s: %s", type(error).__name__, error)
    return Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=encodable(str(error) if told is None else told)[:_MOST_DETAIL_CHARACTERS],
        code=error.code,
        retryable=error.retryable,
        run_id=run_id,
        errors=fields,
    )


def problem_response(error: Exception, **more: Any) -> Response:
    """Return the response for *error*; *more* as in ``problem_of``."""
    problem = problem_of(error, **more)
    headers = {}
    if problem.retryable:
        headers["retry-after"] = str(_pause_s(error))
    if isinstance(error, refusals.UnauthenticatedError):
        headers["www-authenticate"] = "Bearer"
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=problem.status,
        headers=headers,
        media_type=PROBLEM_JSON,
    )


def invalid_request(found: Iterable[Any]) -> Response:
    """Return the response for what pydantic *found* wrong; nothing of the input is echoed."""
    listed = list(found)
    if any(one["type"] == "json_invalid" for one in listed):
        return problem_response(refusals.MalformedError("the body is no valid JSON"))
    fields = [
        FieldProblem(
            field=encodable(".".join(map(str, one["loc"])))[:_MOST_FIELD_CHARACTERS],
            detail=encodable(_detail(one))[:_MOST_DETAIL_CHARACTERS],
        )
        for one in listed[:_MOST_FIELD_ERRORS]
    ]
    # Our own rules raise our own errors, in which pydantic wraps itself.
    own = next((e for one in listed if isinstance(e := _cause(one), errors.AgnoSQLError)), None)
    first = f"{fields[0].field}: {fields[0].detail}" if fields else "the request is not valid"
    return problem_response(own or errors.InvalidInputError(first), fields=fields)


def _cause(one: Any) -> Any:
    return one.get("ctx", {}).get("error")


def _detail(one: Any) -> str:
    cause = _cause(one)
    return str(cause) if isinstance(cause, errors.AgnoSQLError) else str(one["msg"])


def _pause_s(error: Exception) -> int:
    pause = getattr(error, "retry_after", None)
    return 1 if pause is None else max(1, ceil(pause.total_seconds()))
