"""What the server itself refuses, before or beside the library."""

from __future__ import annotations

from agno_sql.errors import AgnoSQLError


class RefusalError(AgnoSQLError):
    """A request that the server does not serve."""

    code = "refused"


class UnauthenticatedError(RefusalError):
    """No valid API key or token came with the request."""

    code = "unauthenticated"


class ForbiddenError(RefusalError):
    """The caller may not do this, or not for this user."""

    code = "forbidden"


class NotFoundError(RefusalError):
    """The user has no such session or run; another user's looks the same."""

    code = "not_found"


class MethodNotAllowedError(RefusalError):
    """The path has no such method."""

    code = "method_not_allowed"


class UnknownHostError(RefusalError):
    """The request was for a host that this server is not."""

    code = "unknown_host"


class MalformedError(RefusalError):
    """The body is no JSON."""

    code = "malformed"


class MediaTypeError(RefusalError):
    """The body is not declared as JSON."""

    code = "unsupported_media_type"


class BodyTooLargeError(RefusalError):
    """The body is larger than the limit."""

    code = "body_too_large"


class SlowBodyError(RefusalError):
    """The body did not arrive in time."""

    code = "body_too_slow"


class OverloadedError(RefusalError):
    """As much is at work as the server may do at once."""

    code = "overloaded"
    retryable = True


class StoppingError(RefusalError):
    """The server stops and takes no more requests."""

    code = "stopping"
    retryable = True
