"""Bar charts, written as SVG by hand: no library is needed, and the files stay small."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 760
_LABELS: Final = 250
_BAR: Final = 18
_GAP: Final = 8
_HEAD: Final = 34
_MARGIN: Final = 16
_VALUES: Final = 70
_COLOURS: Final = {"ours": "#d9480f", "peer": "#4263eb", "floor": "#adb5bd"}
_MEANINGS: Final = {
    "ours": "agno_sql",
    "peer": "other libraries",
    "floor": "plain code without a library",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; *role* chooses its colour."""

    label: str
    value: float
    role: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that share a scale."""

    title: str
    bars: tuple[Bar, ...]


def bar_chart(title: str, unit: str, panels: tuple[Panel, ...]) -> str:
    """Return a chart of *panels* below one another, each with a scale of its own."""
    parts, top = [], _MARGIN + 18
    parts.append(_text(_MARGIN, top, title, size=15, weight=600))
    top += 12
    roles = dict.fromkeys(bar.role for panel in panels for bar in panel.bars)
    parts.append(_legend(tuple(roles), top + 12))
    top += 26
    for panel in panels:
        parts += _panel(panel, unit, top)
        top += _HEAD + len(panel.bars) * (_BAR + _GAP) + 6
    height = top + _MARGIN
    style = "font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" style="{style}">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(panel: Panel, unit: str, top: int) -> list[str]:
    most = max((bar.value for bar in panel.bars), default=1.0) or 1.0
    room = WIDTH - _LABELS - _VALUES - 2 * _MARGIN
    parts = [
        _text(_MARGIN, top + 20, panel.title, size=13, weight=600),
        _text(WIDTH - _MARGIN, top + 20, unit, size=12, anchor="end", fill="#868e96"),
    ]
    for number, bar in enumerate(panel.bars):
        y = top + _HEAD + number * (_BAR + _GAP)
        width = max(1.5, room * bar.value / most)
        left, middle = _MARGIN + _LABELS, y + _BAR / 2 + 4
        weight = 600 if bar.role == "ours" else 400
        parts += [
            _text(left - 10, middle, bar.label, size=12, anchor="end", weight=weight),
            _bar(left, y, width, _COLOURS[bar.role]),
            _text(left + width + 7, middle, _shown(bar.value), size=12, weight=weight),
        ]
    return parts


def _bar(left: int, top: int, width: float, colour: str) -> str:
    return (
        f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="3" fill="{colour}"/>'
    )


def _legend(roles: tuple[str, ...], y: int) -> str:
    parts, x = [], _MARGIN
    for role in _MEANINGS:
        if role not in roles:
            continue
        parts.append(
            f'<rect x="{x}" y="{y - 10}" width="11" height="11" rx="2" fill="{_COLOURS[role]}"/>'
        )
        parts.append(_text(x + 17, y, _MEANINGS[role], size=12, fill="#495057"))
        x += 17 + 7 * len(_MEANINGS[role]) + 18
    return "\n".join(parts)


def _text(  # noqa: PLR0913  (a text has that many properties)
    x: float,
    y: float,
    text: str,
    *,
    size: int,
    anchor: str = "start",
    weight: int = 400,
    fill: str = "#212529",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'
    )


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
