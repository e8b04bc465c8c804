"""Where a page ended, as an opaque word."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime

from agno_sql.errors import InvalidOptionError
from agno_sql.ids import named_user_id


def of_activity(at: datetime, named: str) -> str:
    """Return the cursor of a page that ended with what is *named*, last active at *at*."""
    word = json.dumps([at.isoformat(), named], ensure_ascii=False)
    return urlsafe_b64encode(word.encode()).decode()


def activity(cursor: str) -> tuple[datetime, str]:
    """Return what ``of_activity`` was given; raise InvalidOptionError for anything else."""
    try:
        at, named = json.loads(urlsafe_b64decode(cursor.encode()))
        moment = datetime.fromisoformat(at)
        return moment.astimezone(UTC), named_user_id(named)  # sessions have the same rule
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise _unknown() from None


def seq(cursor: str) -> int:
    """Return the number of a message that *cursor* is; raise InvalidOptionError for another."""
    if not cursor.isdecimal() or not cursor.isascii() or len(cursor) > len(str(2**63)):
        raise _unknown()
    return int(cursor)


def _unknown() -> InvalidOptionError:
    return InvalidOptionError("cursor must be the next of another page")
