"""Whose tasks a request is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from agno_sql.errors import InvalidSessionIdError, InvalidUserIdError
from agno_sql.ids import DEFAULT_SESSION, named_user_id, valid_session_id
from agno_sql.server.auth.caller import caller_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.datastructures import Headers
    from starlette.requests import Request

    from agno_sql.server.auth.caller import Authenticator

USER_HEADER: Final = "agno-user-id"
"""Names the user that an API key acts for, percent-encoded."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A user, whose sessions the contexts are; ``None`` where each context is a user itself."""

    user_id: str | None

    def conversation(self, context_id: str) -> tuple[str, str]:
        """Return user and session of a context.

        Raises:
            InvalidSessionIdError: It can't be one.
        """
        try:
            valid_session_id(context_id)
        except InvalidSessionIdError as error:
            told = str(error).replace("session_id", "contextId", 1)
            raise InvalidSessionIdError(told) from None
        if self.user_id is None:
            return context_id, DEFAULT_SESSION
        return self.user_id, context_id

    def context_of(self, user_id: str, session_id: str) -> str:
        """Return the context that is this conversation of the owner."""
        return user_id if self.user_id is None else session_id


async def owner_of(request: Request, authenticators: Sequence[Authenticator]) -> Owner:
    """Return whose tasks *request* is about.

    The user is that of the token. An API key acts for the user that the header names; so does
    everybody where there is no authentication, and without the header each context is a user.

    Raises:
        UnauthenticatedError, ForbiddenError: See ``caller_of`` and ``Caller.acting_for``.
        InvalidUserIdError: The header names no user, or is missing with an API key.
    """
    caller = await caller_of(request, authenticators)
    named = _named_user(request.headers)
    if named is None and caller.user_id is None:
        if authenticators:
            raise InvalidUserIdError(f"the header {USER_HEADER} must say who the API key acts for")
        return Owner(None)
    return Owner(caller.acting_for(named))


def _named_user(headers: Headers) -> str | None:
    sent = headers.getlist(USER_HEADER)
    if not sent:
        return None
    if len(sent) > 1 or not sent[0].isascii():
        raise InvalidUserIdError(f"the header {USER_HEADER} must be there once, percent-encoded")
    try:
        return named_user_id(unquote(sent[0], errors="strict"))
    except UnicodeDecodeError:
        raise InvalidUserIdError(f"the header {USER_HEADER} must be UTF-8") from None
