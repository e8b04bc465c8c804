"""What the endpoints work with, and how they get it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Query
from pydantic import AfterValidator, WithJsonSchema
from starlette.requests import Request

from agno_sql.agent.agent import Agent
from agno_sql.ids import (
    MAX_ID_CHARACTERS,
    MAX_RUN_ID_CHARACTERS,
    named_user_id,
    valid_run_id,
    valid_session_id,
)
from agno_sql.memory.sql import SQLMemory
from agno_sql.server.auth.caller import Authenticator, Caller, caller_of
from agno_sql.server.ongoing import OngoingRuns


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An agent with its memory, as an application serves it."""

    agent: Agent
    memory: SQLMemory
    ongoing: OngoingRuns
    auth: Sequence[Authenticator]


async def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


TheServed = Annotated[Served, Depends(_served)]


async def _caller(request: Request, served: TheServed) -> Caller:
    return await caller_of(request, served.auth)


TheCaller = Annotated[Caller, Depends(_caller)]


async def _administrator(caller: TheCaller) -> Caller:
    caller.must_be_admin()
    return caller


Administrator = Annotated[Caller, Depends(_administrator)]

_ID_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_ID_CHARACTERS,
    "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
}
_RUN_ID_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_RUN_ID_CHARACTERS,
    "pattern": "^[\\u0021-\\u007e]+$",
}
UserId = Annotated[str, AfterValidator(named_user_id), WithJsonSchema(_ID_SCHEMA)]
SessionId = Annotated[str, AfterValidator(valid_session_id), WithJsonSchema(_ID_SCHEMA)]
RunId = Annotated[str, AfterValidator(valid_run_id), WithJsonSchema(_RUN_ID_SCHEMA)]

_NamedUser = Annotated[
    UserId | None, Query(description="Whose; required unless the token names the user.")
]


async def _user(caller: TheCaller, user_id: _NamedUser = None) -> str:
    return caller.acting_for(user_id)


TheUser = Annotated[str, Depends(_user)]
TheSession = Annotated[SessionId, Query(description="Which of the user's conversations.")]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    cursor: str | None

    @property
    def enough(self) -> int:
        """How many to read, so that it is known whether there are more."""
        return self.limit + 1

    def cut(
        self, found: Sequence[_Item], cursor: Callable[[_Item], str]
    ) -> tuple[Sequence[_Item], str | None]:
        """Return what is shown of *found*, and the cursor of the page behind if there is one."""
        page = found[: self.limit]
        return page, cursor(page[-1]) if len(found) > self.limit else None


async def _page(
    limit: Annotated[int, Query(ge=1, le=100, description="How many to return at most.")] = 20,
    cursor: Annotated[
        str | None,
        Query(max_length=2000, description="The `next` of the page before; none begins."),
    ] = None,
) -> Page:
    return Page(limit, cursor)


ThePage = Annotated[Page, Depends(_page)]
