"""Where a page ended, as an opaque word."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any, Final

from agno_sql.errors import InvalidOptionError
from agno_sql.ids import named_user_id, valid_run_id, valid_session_id
from agno_sql.runs import RunPlace

_NONE: Final = (ValueError, TypeError, OverflowError, RecursionError)


def of_activity(at: datetime, named: str) -> str:
    """Return the cursor of a page that ended with what is *named*, last active at *at*."""
    return _word(at.isoformat(), named)


def activity(cursor: str) -> tuple[datetime, str]:
    """Return what ``of_activity`` was given; raise InvalidOptionError for anything else."""
    try:
        at, named = _told(cursor)
        return _moment(at), named_user_id(named)  # sessions have the same rule
    except _NONE:
        raise _unknown() from None


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


def _word(*parts: str) -> str:
    return urlsafe_b64encode(json.dumps(parts, ensure_ascii=False).encode()).decode()


def _told(cursor: str) -> Any:
    return json.loads(urlsafe_b64decode(cursor.encode()))


def _moment(at: str) -> datetime:
    return datetime.fromisoformat(at).astimezone(UTC)


def _unknown() -> InvalidOptionError:
    return InvalidOptionError("cursor must be the next of another page")
