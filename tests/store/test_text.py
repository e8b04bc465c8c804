from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agno_sql.store.text import decode, encode

# Surrogates too: Hypothesis leaves them out unless it is told not to.
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_any_string_reads_back_identical(text: str) -> None:
    assert decode(encode(text)) == text


@given(ANY_TEXT)
def test_what_is_stored_has_no_nul_and_can_be_encoded(text: str) -> None:
    stored = encode(text)
    stored.encode("utf-8", errors="strict")
    assert "\0" not in stored


@given(ANY_TEXT, ANY_TEXT)
def test_different_strings_are_stored_differently(one: str, other: str) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x10")))
def test_ordinary_text_is_stored_as_it_is(text: str) -> None:
    assert encode(text) == text


@pytest.mark.parametrize("broken", ["\x10", "a\x10zzzz", "\x10000", "\x100000\x10"])
def test_an_escape_that_was_never_written_is_an_error(broken: str) -> None:
    with pytest.raises(ValueError, match="broken escape"):
        decode(broken)
