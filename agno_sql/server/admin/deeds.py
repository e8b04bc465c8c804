"""The pages that delete: each shows first what that means, and wants it confirmed by typing."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from agno_sql.errors import InvalidOptionError
from agno_sql.ids import shown as escaped
from agno_sql.server.admin.pages import Shown, session_of, user_of
from agno_sql.server.admin.rendering import counted, isolated, visible

if TYPE_CHECKING:
    from starlette.responses import Response

    from agno_sql.oversight import Kept
    from agno_sql.server.admin.visit import Visit

_log: Final = logging.getLogger(__name__)
_DAYS: Final = 90
_MOST_DAYS: Final = 36_500
_WITHIN: Final = timedelta(seconds=20)
_EXAMPLES: Final = 10


async def clear(visit: Visit, shown: Shown) -> Response:
    """Delete the messages of a session."""
    session = await session_of(visit, shown)
    key = {"user_id": session.user_id, "session_id": session.session_id}
    kept = await shown.memory.operator.kept(**key)
    if not _is_confirmed(visit, session.session_id):
        return _asking(visit, "clear.html", session=session, kept=kept)
    await shown.agent.clear_memory(**key)
    told = f"{counted(kept.messages, 'message')} and {counted(kept.runs, 'run')}"
    _log.info(
        "%s cleared session %s of user %s: %s",
        visit.who,
        escaped(session.session_id),
        escaped(session.user_id),
        told,
    )
    return visit.go_to("session", notice=f"Cleared: {told} were deleted.", **key)


async def erase(visit: Visit, shown: Shown) -> Response:
    """Delete everything of a user."""
    user_id, kept = await user_of(visit, shown)
    if not _is_confirmed(visit, user_id):
        return _asking(visit, "erase.html", user_id=user_id, kept=kept)
    await shown.memory.erase(user_id)
    told = _told(kept)
    _log.info("%s erased user %s: %s", visit.who, escaped(user_id), told)
    return visit.go_to("users", notice=f"Erased {isolated(user_id)}: {told} were deleted.")


async def clean_up(visit: Visit, shown: Shown) -> Response:
    """Delete the users who have been away for long."""
    days = _days(visit)
    now = datetime.now(UTC)
    # Who is counted now is who will be deleted: the time that was shown is what counts.
    until = _until(visit.form.get("until"), now) or now - timedelta(days=days or _DAYS)
    if days is None:
        return visit.page("clean_up.html", days=_DAYS, kept=None)
    kept = await shown.memory.operator.inactive(until)
    if not _is_confirmed(visit, str(kept.users)):
        examples = await shown.memory.inactive_users(now - until, limit=_EXAMPLES)
        return _asking(visit, "clean_up.html", days=days, kept=kept, until=until, examples=examples)
    deleted = await shown.memory.operator.delete_inactive(until, within=_WITHIN)
    _log.info("%s deleted %d users inactive since %s", visit.who, deleted, until)
    notice = f"{counted(deleted, 'user')} deleted."
    if deleted < kept.users:
        notice += " Not all yet: it takes long, so go on with those who are left."
    return visit.go_to("clean-up", notice=notice, days=days)


def _is_confirmed(visit: Visit, expected: str) -> bool:
    # What is typed is what is shown, which of an id of blanks alone is something else.
    return visit.form.get("confirmation") in (expected, visible(expected))


def _asking(visit: Visit, template: str, **values: object) -> Response:
    is_wrong = "confirmation" in visit.form
    return visit.page(template, is_wrong=is_wrong, status=422 if is_wrong else 200, **values)


def _days(visit: Visit) -> int | None:
    asked = visit.asked("days")
    if asked is None:
        return None
    if not (asked.isascii() and asked.isdecimal() and len(asked) <= len(str(_MOST_DAYS))):
        raise InvalidOptionError("days must be a whole number")
    if not 1 <= int(asked) <= _MOST_DAYS:
        raise InvalidOptionError(f"days must be from 1 to {_MOST_DAYS}")
    return int(asked)


def _until(posted: str | None, now: datetime) -> datetime | None:
    if posted is None:
        return None
    try:
        told = datetime.fromisoformat(posted)
        until = told.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidOptionError("until must be a time") from None
    if told.utcoffset() is None or until > now:
        raise InvalidOptionError("until must be a time in the past, with its offset from UTC")
    return until


def _told(kept: Kept) -> str:
    return ", ".join(
        counted(number, thing)
        for number, thing in (
            (kept.sessions, "session"),
            (kept.messages, "message"),
            (kept.runs, "run"),
        )
    )
