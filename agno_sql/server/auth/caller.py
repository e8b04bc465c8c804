"""Who asks, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agno_sql.errors import InvalidUserIdError
from agno_sql.server.refusals import ForbiddenError, UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who a request is from; one without a ``user_id`` of their own may act for any user."""

    user_id: str | None = None
    is_admin: bool = False

    def acting_for(self, named: str | None) -> str:
        """Return the user whose data the request is about.

        Raises:
            ForbiddenError: The request names another user than the token.
            InvalidUserIdError: Neither names one.
        """
        if self.user_id is None:
            if named is None:
                raise InvalidUserIdError("user_id is missing")
            return named
        if named is not None and named != self.user_id:
            raise ForbiddenError("the token is of another user")
        return self.user_id

    def must_be_admin(self) -> None:
        """Raise ForbiddenError unless the caller is an administrator."""
        if not self.is_admin:
            raise ForbiddenError("this takes an administrator")


class Authenticator(Protocol):
    """Recognises callers by the bearer token they send."""

    async def caller(self, token: str) -> Caller | None:
        """Return whose *token* it is; ``None`` if it is not valid, or of another kind."""
        ...


async def caller_of(request: Request, authenticators: Sequence[Authenticator]) -> Caller:
    """Return who *request* is from; without authenticators that is somebody who may do anything.

    Raises:
        UnauthenticatedError: None of them knows the bearer token, or there is not just one.
    """
    if not authenticators:
        return Caller(is_admin=True)
    sent = request.headers.getlist("authorization")
    scheme, _, token = (sent[0] if len(sent) == 1 else "").partition(" ")
    if scheme.lower() == "bearer":
        for authenticator in authenticators:
            if (caller := await authenticator.caller(token)) is not None:
                return caller
    raise UnauthenticatedError("send a valid API key or token: Authorization: Bearer …")
