"""What a provider's errors mean: by status and code, by text only where servers give nothing else."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from agno_sql.errors import (
    ContentFilterError,
    ContextTooLongError,
    ModelAuthenticationError,
    ModelError,
    ModelRequestError,
    ModelTimeoutError,
    ModelUnavailableError,
    RateLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openai import APIError

HOW_TO_GIVE_A_KEY: Final = "set OPENAI_API_KEY or pass api_key to OpenAIChat"
# Compatible servers (vLLM, llama.cpp) have codes of their own, or none.
_CONTEXT_TOO_LONG: Final = re.compile(
    "maximum context length|context_length_exceeded|exceeds the available context", re.IGNORECASE
)
_BY_STATUS: Final[Mapping[int | None, type[ModelError]]] = {
    401: ModelAuthenticationError,
    403: ModelAuthenticationError,
    408: ModelTimeoutError,
    409: ModelUnavailableError,  # a lock was not free in time, says OpenAI
    429: RateLimitError,
    504: ModelTimeoutError,
}
_BY_CODE: Final[Mapping[str, type[ModelError]]] = {
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "context_length_exceeded": ContextTooLongError,
}
# Looked at where there is no status to go by: in the midst of a stream.
_BY_CODE_IN_STREAM: Final[Mapping[str, type[ModelError]]] = {
    "insufficient_quota": RateLimitError,
    "rate_limit_exceeded": RateLimitError,
    "invalid_api_key": ModelAuthenticationError,
    "invalid_request_error": ModelRequestError,
}


def http_errors(name: str) -> tuple[type[Exception], ...]:
    """Return the error class *name* of each HTTP library that ``openai`` may have loaded.

    Before openai 3 their errors come through in the midst of a stream.
    """
    libraries = (sys.modules[library] for library in ("httpx", "httpx2") if library in sys.modules)
    return tuple(getattr(library, name) for library in libraries)


def model_error(error: APIError, told: Callable[[object], str]) -> ModelError:
    """Return *error* as ours; *told* makes its text fit to be shown."""
    said = error.body.get("message") if isinstance(error.body, dict) else None
    said = said if isinstance(said, str) else error.message
    status = getattr(error, "status_code", None)
    kind = _kind(error, status, said)
    message = told(f"{said} (status {status})" if status else said)
    if kind is ModelAuthenticationError and status == HTTPStatus.UNAUTHORIZED:
        message = f"{message}; {HOW_TO_GIVE_A_KEY}"
    if kind is not RateLimitError:
        return kind(message)
    limited = RateLimitError(message, retry_after=_retry_after(getattr(error, "response", None)))
    # No pause helps against an empty account.
    limited.retryable = "insufficient_quota" not in {error.code, error.type}
    return limited


def _kind(error: APIError, status: int | None, said: str) -> type[ModelError]:
    code, kind = str(error.code), str(error.type)
    if status is None and code.isdecimal():  # vLLM, in the midst of a stream
        return _kind(error, int(code), said)
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if code in _BY_CODE:
        return _BY_CODE[code]
    if _CONTEXT_TOO_LONG.search(said):
        return ContextTooLongError
    if status is None:
        return _BY_CODE_IN_STREAM.get(code) or _BY_CODE_IN_STREAM.get(kind) or ModelUnavailableError
    is_refusal = status < HTTPStatus.INTERNAL_SERVER_ERROR
    return ModelRequestError if is_refusal else ModelUnavailableError


def _retry_after(response: Any) -> timedelta | None:
    headers: Mapping[str, str] = response.headers if response is not None else {}
    for header, unit in (("retry-after-ms", "milliseconds"), ("retry-after", "seconds")):
        with suppress(ValueError, OverflowError):
            return max(timedelta(), timedelta(**{unit: float(headers.get(header, "nan"))}))
    with suppress(ValueError):
        at = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(timedelta(), at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC))
    return None
