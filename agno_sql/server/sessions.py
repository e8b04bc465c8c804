"""A user's sessions and their messages."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel

from agno_sql.ids import DEFAULT_SESSION
from agno_sql.message import Message, Role, encodable
from agno_sql.server import cursor as cursors
from agno_sql.server.openapi import problems
from agno_sql.server.refusals import NotFoundError
from agno_sql.server.served import Served, ThePage, TheServed, TheSession, TheUser

router: Final = APIRouter(tags=["sessions"])


class SessionSummary(BaseModel):
    """One conversation of a user; `title` is how the oldest message that they wrote begins."""

    session_id: str
    message_count: int
    created_at: datetime
    last_active_at: datetime
    title: str | None


class SessionPage(BaseModel):
    """Sessions, the latest activity first; `next` is the cursor of the page behind."""

    user_id: str
    sessions: list[SessionSummary]
    next: str | None


class StoredToolCall(BaseModel):
    """A model's wish to call a tool; `arguments` is the text that it sent."""

    id: str
    name: str
    arguments: str


class StoredMessage(BaseModel):
    """One message; `seq` is its number in the session."""

    seq: int
    role: Role
    content: str
    created_at: datetime
    name: str | None = None
    tool_calls: list[StoredToolCall] | None = None
    tool_call_id: str | None = None
    run_id: str | None = None

    @classmethod
    def of(cls, message: Message) -> Self:
        """Return *message* as JSON can carry it."""
        return cls(
            seq=message.seq or 0,
            role=message.role,
            content=encodable(message.content),
            created_at=message.created_at or datetime.min.replace(tzinfo=UTC),
            name=None if message.name is None else encodable(message.name),
            tool_calls=[
                StoredToolCall(
                    id=encodable(call.id),
                    name=encodable(call.name),
                    arguments=encodable(call.arguments),
                )
                for call in message.tool_calls
            ]
            or None,
            tool_call_id=None if message.tool_call_id is None else encodable(message.tool_call_id),
            run_id=message.run_id,
        )


class MessagePage(BaseModel):
    """Messages in the order that was asked for; `next` is the cursor of the page behind."""

    user_id: str
    session_id: str
    messages: list[StoredMessage]
    next: str | None = None


@router.get("/sessions", summary="List a user's sessions", responses=problems(401, 403, 422, 503))
async def sessions(user: TheUser, page: ThePage, served: TheServed) -> SessionPage:
    """List the sessions, the latest activity first. An unknown user has none."""
    after = None if page.cursor is None else cursors.session(page.cursor, user)
    found = await served.memory.sessions(user, limit=page.enough, after=after)
    shown, more = page.cut(found, cursors.of_session)
    return SessionPage(
        user_id=user,
        sessions=[
            SessionSummary(
                session_id=one.session_id,
                message_count=one.message_count,
                created_at=one.created_at,
                last_active_at=one.last_active_at,
                title=None if one.title is None else encodable(one.title),
            )
            for one in shown
        ],
        next=more,
    )


@router.get(
    "/messages",
    summary="List the messages of a session",
    response_model_exclude_none=True,
    responses=problems(401, 403, 404, 422, 503),
)
async def messages(
    user: TheUser,
    page: ThePage,
    served: TheServed,
    session_id: TheSession = DEFAULT_SESSION,
    order: Annotated[
        Literal["newest", "oldest"], Query(description="Which come first.")
    ] = "newest",
) -> MessagePage:
    """List the messages that are kept, the newest or the oldest first."""
    seq = None if page.cursor is None else cursors.seq(page.cursor)
    if order == "newest":
        found = await served.memory.get_messages(
            user, session_id=session_id, limit=page.enough, before=seq
        )
        found.reverse()
    else:
        found = await served.memory.oldest_messages(
            user, session_id=session_id, limit=page.enough, after=seq or 0
        )
    if not found:
        await _must_exist(served, user, session_id)
    shown, more = page.cut(found, lambda last: str(last.seq))
    return MessagePage(
        user_id=user,
        session_id=session_id,
        messages=[StoredMessage.of(message) for message in shown],
        next=more,
    )


@router.delete(
    "/messages",
    summary="Clear a session",
    status_code=204,
    responses=problems(401, 403, 404, 422, 503),
)
async def clear(user: TheUser, served: TheServed, session_id: TheSession = DEFAULT_SESSION) -> None:
    """Delete the messages of a session, and end a run that is at work in it."""
    await _must_exist(served, user, session_id)
    await served.agent.clear_memory(user, session_id=session_id)


async def _must_exist(served: Served, user_id: str, session_id: str) -> None:
    if await served.memory.session(user_id, session_id=session_id) is None:
        raise NotFoundError("there is no such session")
