from __future__ import annotations

import io
import json
import re
from datetime import timedelta
from itertools import pairwise

import pytest
import typer
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from agno_sql.cli.durations import duration_text, parse_duration
from agno_sql.cli.flow import Flow
from agno_sql.cli.text import as_json, one_line, safe

WIDTH = 20


def _screen(written: str) -> list[str]:
    """Return the lines that a terminal shows after *written*; trailing blanks are not seen."""
    lines = []
    for line in written.split("\n"):
        cells: list[str] = []
        at = 0
        for character in line:
            if character == "\b":
                at -= 1
            else:
                cells[at : at + 1] = [character]
                at += 1
        lines.append("".join(cells).rstrip())
    return lines


def _flow() -> tuple[Flow, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, width=WIDTH, force_terminal=True, _environ={"TERM": "xterm"})
    return Flow(console), file


@given(
    words=st.lists(st.text("abcde", min_size=1, max_size=WIDTH - 1)),
    cuts=st.lists(st.integers(0, 300), max_size=30),
)
def test_streamed_words_are_never_broken_however_the_pieces_are_cut(
    words: list[str], cuts: list[int]
) -> None:
    text = " ".join(words)
    ends = sorted({*(cut for cut in cuts if cut < len(text)), 0, len(text)})
    flow, file = _flow()

    for start, end in pairwise(ends):
        flow.write(text[start:end])

    lines = _screen(file.getvalue())
    assert [word for line in lines for word in line.split()] == words
    assert all(len(line) < WIDTH for line in lines)


def test_a_word_longer_than_a_line_is_left_to_the_terminal() -> None:
    flow, file = _flow()

    flow.write("see " + "x" * 50)
    flow.end_line()
    flow.end_line()

    assert file.getvalue() == "see " + "x" * 50 + "\n"


def test_wide_characters_take_two_columns() -> None:
    flow, file = _flow()

    flow.write("一二三四五六七八 九十")

    assert file.getvalue() == "一二三四五六七八 \n九十"


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
