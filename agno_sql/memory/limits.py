"""The bounds of numbers that callers give."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from agno_sql.errors import InvalidOptionError
from agno_sql.ids import shown

_LARGEST: Final = 2**63 - 1


def valid_capacity(capacity: int | None) -> int | None:
    """Return *capacity*, ``None`` for no limit, or raise InvalidOptionError."""
    return None if capacity is None else at_least(1, capacity, "capacity")


def at_least(least: int, value: int, name: str, *, most: int | None = None) -> int:
    """Return *value*, as a 64-bit number, or raise InvalidOptionError naming it."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidOptionError(f"{name} must be a whole number, got {shown(value)}")
    if value < least:
        raise InvalidOptionError(f"{name} must be at least {least}, got {value}")
    if most is not None and value > most:
        raise InvalidOptionError(f"{name} must be at most {most}, got {value}")
    return min(value, _LARGEST)


def valid_duration(
    value: timedelta,
    name: str,
    *,
    least: timedelta = timedelta(0),
    most: timedelta = timedelta.max,
) -> timedelta:
    """Return *value* or raise InvalidOptionError naming it."""
    if not isinstance(value, timedelta):
        raise InvalidOptionError(f"{name} must be a timedelta, got {shown(value)}")
    if value < least:
        raise InvalidOptionError(
            f"{name} must be at least {_seconds(least)}, got {_seconds(value)}"
        )
    if value > most:
        raise InvalidOptionError(f"{name} must be at most {_seconds(most)}, got {_seconds(value)}")
    return value


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():g} s"
