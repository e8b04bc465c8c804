from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
import typer
from hypothesis import assume, given
from hypothesis import strategies as st

from agno_sql.cli.durations import duration_text, parse_duration
from agno_sql.cli.text import as_json, one_line, safe

ANYTHING = st.text(st.characters(exclude_categories=()))


@given(ANYTHING)
def test_safe_text_holds_nothing_a_terminal_obeys_and_can_be_encoded(text: str) -> None:
    shown = safe(text)

    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in shown)
    shown.encode()
    assert "\n" not in one_line(text)


@given(ANYTHING, st.booleans())
def test_json_is_safe_and_loses_nothing(text: str, ascii_only: bool) -> None:
    # JSON itself can't tell two halves of a pair from the character they make.
    assume(not re.search("[\ud800-\udbff][\udc00-\udfff]", text))

    written = as_json([text], ascii_only=ascii_only)

    assert json.loads(written) == [text]
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in written)
    assert written.encode()
    assert not ascii_only or written.isascii()


@pytest.mark.parametrize(
    "written, duration",
    [
        ("30d", timedelta(days=30)),
        ("12h", timedelta(hours=12)),
        ("45m", timedelta(minutes=45)),
        ("90s", timedelta(seconds=90)),
        ("2w", timedelta(days=14)),
        ("0d", timedelta(0)),
    ],
)
def test_durations_are_read(written: str, duration: timedelta) -> None:
    assert parse_duration(written) == duration
    assert parse_duration(duration_text(duration)) == duration


@pytest.mark.parametrize("written", ["", "30", "d", "-1d", "1.5h", "30 d", "3٣d", "1d2h", "5y"])
def test_other_durations_are_misuse_that_shows_the_form(written: str) -> None:
    with pytest.raises(typer.BadParameter, match="30d, 12h, 45m, 90s or 2w"):
        parse_duration(written)
