"""The rules for user, session and run ids."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from agno_sql.errors import (
    InvalidInputError,
    InvalidRunIdError,
    InvalidSessionIdError,
    InvalidUserIdError,
)

DEFAULT_USER: Final = "default"
DEFAULT_SESSION: Final = "default"
MAX_ID_CHARACTERS: Final = 255
MAX_RUN_ID_CHARACTERS: Final = 128

_SHOWN_CHARACTERS: Final = 60
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_RUN_ID: Final = re.compile(f"[\x21-\x7e]{{1,{MAX_RUN_ID_CHARACTERS}}}")


def valid_user_id(user_id: str | None) -> str:
    """Return *user_id*, or the default user for ``None``; raise InvalidUserIdError otherwise."""
    return DEFAULT_USER if user_id is None else named_user_id(user_id)


def named_user_id(user_id: str) -> str:
    """Return *user_id* or raise InvalidUserIdError; ``None`` is no user here."""
    return _valid(user_id, "user_id", InvalidUserIdError)


def valid_session_id(session_id: str) -> str:
    """Return *session_id* or raise InvalidSessionIdError."""
    return _valid(session_id, "session_id", InvalidSessionIdError)


def conversation_key(user_id: str | None, session_id: str) -> tuple[str, str]:
    """Return the key of a conversation, both ids checked; ``None`` is the default user."""
    return valid_user_id(user_id), valid_session_id(session_id)


def valid_run_id(run_id: str) -> str:
    """Return *run_id* or raise InvalidRunIdError."""
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise InvalidRunIdError(
            f"run_id must be 1 to {MAX_RUN_ID_CHARACTERS} visible ASCII characters, got {shown(run_id)}"
        )
    return run_id


def run_id_of(key: str) -> str:
    """Return *key*, a name that others gave, as a run_id: itself if it is one, else its digest."""
    try:
        return valid_run_id(key)
    except InvalidRunIdError:
        return f"sha256:{sha256(key.encode()).hexdigest()}"


def shown(value: object) -> str:
    """Return *value* as it may stand in an error message: escaped and short."""
    text = ascii(value) if isinstance(value, str) else type(value).__name__
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _valid(value: str, field: str, error: type[InvalidInputError]) -> str:
    if not isinstance(value, str):
        raise error(f"{field} must be a string, got {shown(value)}")
    if not 1 <= len(value) <= MAX_ID_CHARACTERS:
        raise error(f"{field} must have 1 to {MAX_ID_CHARACTERS} characters, got {len(value)}")
    if found := _FORBIDDEN.search(value):
        raise error(
            f"{field} must not contain control characters or lone surrogates, "
            f"found U+{ord(found[0]):04X} at position {found.start()}"
        )
    return value
