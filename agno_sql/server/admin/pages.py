"""The pages that only show something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agno_sql.errors import InvalidOptionError, InvalidUserIdError
from agno_sql.ids import named_user_id, valid_session_id
from agno_sql.server import cursor as cursors
from agno_sql.server.admin.charts import charts_of
from agno_sql.server.admin.transcript import bubbles
from agno_sql.server.refusals import NotFoundError
from agno_sql.server.served import Page

if TYPE_CHECKING:
    from starlette.responses import Response

    from agno_sql.agent.agent import Agent
    from agno_sql.memory.sql import SQLMemory
    from agno_sql.message import Session
    from agno_sql.oversight import Kept
    from agno_sql.server.admin.recent import RecentStatistics
    from agno_sql.server.admin.visit import Visit

_ROWS: Final = 50
_AGAIN_S: Final = "2"


@dataclass(frozen=True, slots=True)
class Shown:
    """What the pages are about."""

    agent: Agent
    memory: SQLMemory
    recent: RecentStatistics


async def overview(visit: Visit, shown: Shown) -> Response:
    """Show the charts, and what failed last."""
    found = await shown.recent.get()
    response = visit.page(
        "overview.html",
        found=found,
        charts=charts_of(found) if found else [],
        has_failed=shown.recent.has_failed,
    )
    if found is None and not shown.recent.has_failed:
        response.headers["refresh"] = _AGAIN_S
    return response


async def users(visit: Visit, shown: Shown) -> Response:
    """Show all users, or those whose ids begin with what is searched."""
    page, prefix = Page(_ROWS, visit.asked("cursor")), visit.asked("prefix")
    if prefix is None:
        after = None if page.cursor is None else cursors.user(page.cursor)
        found = await shown.memory.operator.users(limit=page.enough, after=after)
        listed, more = page.cut(found, cursors.of_user)
        return visit.page("users.html", users=listed, more=more, prefix="", problem=None)
    try:
        found = await shown.memory.operator.users_by_prefix(
            prefix, limit=page.enough, after=page.cursor or ""
        )
    except InvalidUserIdError as problem:
        return visit.page(
            "users.html", users=[], more=None, prefix=prefix, problem=problem, status=422
        )
    listed, more = page.cut(found, lambda last: last.user_id)
    return visit.page("users.html", users=listed, more=more, prefix=prefix, problem=None)


async def user(visit: Visit, shown: Shown) -> Response:
    """Show a user's sessions."""
    user_id, kept = await user_of(visit, shown)
    page = Page(_ROWS, visit.asked("cursor"))
    after = None if page.cursor is None else cursors.session(page.cursor, user_id)
    found = await shown.memory.sessions(user_id, limit=page.enough, after=after)
    sessions, more = page.cut(found, cursors.of_session)
    return visit.page("user.html", user_id=user_id, kept=kept, sessions=sessions, more=more)


async def session(visit: Visit, shown: Shown) -> Response:
    """Show a page of a session's messages, the newest unless another is asked for."""
    session = await session_of(visit, shown)
    key = {"user_id": session.user_id, "session_id": session.session_id}
    before, after, seq = (_number(visit, name) for name in ("before", "after", "seq"))
    if seq is not None:
        after, limit = seq - 1, 1
    else:
        limit = _ROWS + 1
    if after is not None:
        found = await shown.memory.oldest_messages(**key, limit=limit, after=max(after, 0))
        has_older, has_newer = after > 0, len(found) > _ROWS
        found = found[:_ROWS]
    else:
        found = await shown.memory.get_messages(**key, limit=limit, before=before)
        has_older, has_newer = len(found) > _ROWS, before is not None
        found = found[-_ROWS:]
    return visit.page(
        "session.html",
        session=session,
        bubbles=bubbles(found, whole=seq is not None),
        older=found[0].seq if found and has_older else None,
        newer=found[-1].seq if found and has_newer else None,
        only=seq,
    )


async def runs(visit: Visit, shown: Shown) -> Response:
    """Show a session's runs."""
    session = await session_of(visit, shown)
    last_seq, last_run = _number(visit, "last_seq"), visit.asked("last_run")
    page = Page(_ROWS, last_run)
    found = await shown.memory.operator.runs(
        session.user_id,
        session_id=session.session_id,
        limit=page.enough,
        after=None if last_seq is None or last_run is None else (last_seq, last_run),
    )
    listed, more = page.cut(found, lambda last: last.record.run_id)
    return visit.page("runs.html", session=session, runs=listed, more=listed[-1] if more else None)


async def user_of(visit: Visit, shown: Shown) -> tuple[str, Kept]:
    """Return the user that *visit* asks for; raise NotFoundError if nothing is kept of them."""
    user_id = _user_id(visit)
    kept = await shown.memory.operator.kept(user_id)
    if not kept.users:
        raise NotFoundError("nothing is kept of such a user")
    return user_id, kept


async def session_of(visit: Visit, shown: Shown) -> Session:
    """Return the session that *visit* asks for; raise NotFoundError if there is none."""
    user_id = _user_id(visit)
    session_id = valid_session_id(visit.asked("session_id") or "")
    found = await shown.memory.session(user_id, session_id=session_id)
    if found is None:
        raise NotFoundError("there is no such session")
    return found


def _user_id(visit: Visit) -> str:
    return named_user_id(visit.asked("user_id") or "")


def _number(visit: Visit, name: str) -> int | None:
    asked = visit.asked(name)
    try:
        return None if asked is None else cursors.seq(asked)
    except InvalidOptionError:
        raise InvalidOptionError(f"{name} must be a number of a message") from None
