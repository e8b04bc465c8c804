"""Durations, as people write them on a command line."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import typer

_FORM: Final = "write a whole number and a unit: 30d, 12h, 45m, 90s or 2w"
_WRITTEN: Final = re.compile("([0-9]{1,9})([smhdw])")
_UNITS: Final = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
_LONGEST: Final = timedelta(days=36_500)


def parse_duration(written: str) -> timedelta:
    """Return the duration that *written* means; a usage error shows the accepted form."""
    found = _WRITTEN.fullmatch(written.strip())
    if found is None:
        raise typer.BadParameter(f"{written!r} is no duration; {_FORM}.")
    duration = int(found[1]) * _UNITS[found[2]]
    if duration > _LONGEST:
        raise typer.BadParameter(f"{written!r} is too long; {duration_text(_LONGEST)} is the most.")
    return duration


def duration_text(duration: timedelta) -> str:
    """Return *duration*, of whole seconds, as ``parse_duration`` reads it."""
    for unit in "dhms":
        number, rest = divmod(duration, _UNITS[unit])
        if number and not rest:
            return f"{number}{unit}"
    return "0d"
