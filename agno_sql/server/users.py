"""All users, for administrators: listing and erasing them."""

from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel

from agno_sql.server import cursor as cursors
from agno_sql.server.openapi import problems
from agno_sql.server.served import Administrator, ThePage, TheServed, UserId

router: Final = APIRouter(tags=["administration"])


class UserSummary(BaseModel):
    """A user with the number of their sessions and kept messages."""

    user_id: str
    sessions: int
    messages: int
    last_active_at: datetime


class UserPage(BaseModel):
    """Users, the longest idle first; `next` is the cursor of the page behind."""

    users: list[UserSummary]
    next: str | None


class Erased(BaseModel):
    """How many messages were deleted."""

    user_id: str
    messages: int


@router.get("/users", summary="List all users", responses=problems(401, 403, 422, 503))
async def users(_: Administrator, page: ThePage, served: TheServed) -> UserPage:
    """List the users of all the database, the longest idle first. Takes an administrator."""
    after = None if page.cursor is None else cursors.user(page.cursor)
    found = await served.memory.inactive_users(timedelta(0), limit=page.enough, after=after)
    shown, more = page.cut(found, cursors.of_user)
    return UserPage(
        users=[
            UserSummary(
                user_id=user.user_id,
                sessions=user.sessions,
                messages=user.messages,
                last_active_at=user.last_active_at,
            )
            for user in shown
        ],
        next=more,
    )


@router.delete("/user", summary="Erase a user", responses=problems(401, 403, 422, 503))
async def erase(
    _: Administrator,
    served: TheServed,
    user_id: Annotated[UserId, Query(description="Whose data to delete.")],
) -> Erased:
    """Delete everything of a user, of whom nothing is left then. Takes an administrator."""
    return Erased(user_id=user_id, messages=await served.memory.erase(user_id))
