"""Where a page ended, as an opaque word."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any, Final

from agno_sql.errors import InvalidOptionError
from agno_sql.ids import named_user_id, valid_run_id, valid_session_id
from agno_sql.message import Session, UserActivity
from agno_sql.runs import RunPlace

_NONE: Final = (ValueError, TypeError, OverflowError, RecursionError)


def of_user(user: UserActivity) -> str:
    """Return the cursor of a page that ended with *user*."""
    return _word(user.last_active_at.isoformat(), user.user_id)


def user(cursor: str) -> UserActivity:
    """Return the end of the page that ``of_user`` told; raise InvalidOptionError for no cursor."""
    at, user_id = _activity(cursor)
    return UserActivity(user_id=user_id, sessions=0, messages=0, last_active_at=at)


def of_session(session: Session) -> str:
    """Return the cursor of a page that ended with *session*."""
    return _word(session.last_active_at.isoformat(), session.session_id)


def session(cursor: str, user_id: str) -> Session:
    """Return the end of the page that ``of_session`` told; raise InvalidOptionError for no cursor."""
    at, session_id = _activity(cursor)
    return Session(
        user_id=user_id, session_id=session_id, message_count=0, created_at=at, last_active_at=at
    )


def of_run(place: RunPlace) -> str:
    """Return the cursor of a page that ended with the run at *place*."""
    return _word(place.changed_at.isoformat(), place.session_id, place.run_id)


def run(cursor: str) -> RunPlace:
    """Return what ``of_run`` was given; raise InvalidOptionError for anything else."""
    try:
        at, session_id, run_id = _told(cursor)
        return RunPlace(_moment(at), valid_session_id(session_id), valid_run_id(run_id))
    except _NONE:
        raise _unknown() from None


def seq(cursor: str) -> int:
    """Return the number of a message that *cursor* is; raise InvalidOptionError for another."""
    if not cursor.isdecimal() or not cursor.isascii() or len(cursor) > len(str(2**63)):
        raise _unknown()
    return int(cursor)


def _activity(cursor: str) -> tuple[datetime, str]:
    try:
        at, named = _told(cursor)
        return _moment(at), named_user_id(named)  # sessions have the same rule
    except _NONE:
        raise _unknown() from None


def _word(*parts: str) -> str:
    return urlsafe_b64encode(json.dumps(parts, ensure_ascii=False).encode()).decode()


def _told(cursor: str) -> Any:
    return json.loads(urlsafe_b64decode(cursor.encode()))


def _moment(at: str) -> datetime:
    return datetime.fromisoformat(at).astimezone(UTC)


def _unknown() -> InvalidOptionError:
    return InvalidOptionError("cursor must be the next of another page")
