"""HTML from templates, in which whatever is stored is text and nothing else."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from datetime import timedelta

# What HTML or UTF-8 can't carry; templates have nothing of it.
_UNFIT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_FIRST_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"
_VISIBLE: Final = frozenset("LNPS")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_THOUSAND: Final = 1000
_NEARLY_A_THOUSAND: Final = 999.5  # what is rounded to one


def rendered(template: str, **values: Any) -> str:
    """Return the HTML of *template*."""
    html = _TEMPLATES.get_template(template).render(now=datetime.now(UTC), **values)
    return _UNFIT.sub("\ufffd", html.replace("\r\n", "\n"))


def visible(text: str) -> str:
    """Return an id as it can be seen; one of blanks alone as the numbers of its characters."""
    if any(unicodedata.category(character)[0] in _VISIBLE for character in text):
        return text
    return " ".join(f"U+{ord(character):04X}" for character in text)


def isolated(text: str) -> str:
    """Return an id for plain text, such as a title: what it holds turns nothing around it."""
    return f"{_FIRST_ISOLATE}{visible(text)}{_POP_ISOLATE}"


def moment(at: datetime) -> str:
    """Return a time as it is shown, always in UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago *at* is, in one unit."""
    seconds = int((now - at).total_seconds())
    for unit, length in (("day", _DAY), ("hour", _HOUR), ("minute", _MINUTE)):
        if seconds >= length:
            return f"{counted(seconds // length, unit)} ago"
    return "just now"


def counted(number: int, thing: str) -> str:
    """Return *number* with *thing* in singular or plural."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def short(number: int) -> str:
    """Return *number* with three digits at most, for an axis."""
    return "".join(_scaled(number))


def size(number: int) -> str:
    """Return a number of bytes."""
    scaled, unit = _scaled(number)
    return f"{scaled} {unit}B"


def duration(took: timedelta) -> str:
    """Return how long something took."""
    seconds = took.total_seconds()
    if seconds < 1:
        return f"{seconds * _THOUSAND:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes} min {rest} s"


def _scaled(number: int) -> tuple[str, str]:
    amount, units = float(number), iter(("", "k", "M", "G", "T"))
    unit = next(units)
    while amount >= _NEARLY_A_THOUSAND and (larger := next(units, None)):
        amount, unit = amount / _THOUSAND, larger
    return f"{amount:.3g}", unit


_TEMPLATES: Final = Environment(
    loader=PackageLoader("agno_sql.server.admin"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_TEMPLATES.filters |= {
    one.__name__: one for one in (visible, isolated, moment, ago, counted, short, size, duration)
}
