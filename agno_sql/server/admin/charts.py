"""Charts of days, as the geometry that a template draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agno_sql.server.admin.rendering import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from agno_sql.oversight import Statistics

HEIGHT: Final = 100
SLOT: Final = 10
_GAP: Final = 2
_ROUND: Final = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)


@dataclass(frozen=True, slots=True)
class Series:
    """One number a day; ``kind`` is its colour, ``thing`` what is counted."""

    kind: str
    name: str
    thing: str
    values: Sequence[int]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a bar."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """What is drawn of one day, and what it says."""

    x: float
    pieces: Sequence[Piece]
    told: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of some days, one upon another where there are several series."""

    name: str
    title: str
    days: Sequence[date]
    series: Sequence[Series]
    adds_up: bool = True

    @property
    def totals(self) -> list[int]:
        """The height of each bar."""
        return [sum(values) for values in zip(*(one.values for one in self.series), strict=True)]

    @property
    def note(self) -> str:
        """What stands beside the title: the sum, where the numbers of days can be added up."""
        if self.adds_up:
            return f"{sum(self.totals):,} in {len(self.days)} days"
        return f"{max(self.totals):,} at most"

    @property
    def top(self) -> int:
        """What the upper edge means: a round number."""
        most, step = max(self.totals), 1
        if most < _ROUND[0]:
            return max(most, 1)
        while step * _ROUND[-1] < most:
            step *= 10
        return next(step * factor for factor in _ROUND if step * factor >= most)

    @property
    def width(self) -> int:
        """How wide it is, in the units of its bars."""
        return SLOT * len(self.days)

    @property
    def bars(self) -> list[Bar]:
        """A bar for each day."""
        return [self._bar(place) for place in range(len(self.days))]

    @property
    def rows(self) -> list[tuple[date, tuple[int, ...]]]:
        """Each day with its numbers, the newest first."""
        numbers = zip(*(one.values for one in self.series), strict=True)
        return list(zip(self.days, numbers, strict=True))[::-1]

    @property
    def summary(self) -> str:
        """What it shows, in words."""
        totals = self.totals
        highest = max(range(len(totals)), key=totals.__getitem__)
        span = f"{self.days[0]:%d %b %Y} to {self.days[-1]:%d %b %Y}"
        if not totals[highest]:
            return f"{self.title}, {span}: none."
        return f"{self.title}, {span}: most on {self._told(highest)}."

    def _bar(self, place: int) -> Bar:
        x, y = SLOT * place + _GAP / 2, float(HEIGHT)
        pieces = []
        for one in self.series:
            height = HEIGHT * one.values[place] / self.top
            y -= height
            pieces.append(Piece(one.kind, x, round(y, 2), SLOT - _GAP, round(height, 2)))
        return Bar(SLOT * place, pieces, self._told(place))

    def _told(self, place: int) -> str:
        numbers = ", ".join(counted(one.values[place], one.thing) for one in self.series)
        return f"{self.days[place]:%d %b}: {numbers}"


def charts_of(found: Statistics) -> list[Chart]:
    """Return the charts of *found*."""

    def chart(name: str, title: str, *series: tuple[str, str, str], adds_up: bool = True) -> Chart:
        days = [day.day for day in found.days]
        return Chart(name, title, days, [of(*one) for one in series], adds_up)

    def of(kind: str, field: str, thing: str) -> Series:
        name = field.replace("_", " ").capitalize()
        return Series(kind, name, thing, [getattr(day, field) for day in found.days])

    return [
        chart("messages", "Messages a day", ("a", "messages", "message")),
        chart(
            "tokens",
            "Tokens a day",
            ("a", "input_tokens", "input token"),
            ("b", "output_tokens", "output token"),
        ),
        chart("users", "Active users a day", ("c", "users", "user"), adds_up=False),
        chart("failures", "Failed runs a day", ("bad", "failed_runs", "failed run")),
    ]
