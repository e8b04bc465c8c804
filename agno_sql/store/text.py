r"""Text that survives every database.

PostgreSQL refuses NUL in text, no encoding knows lone surrogates, and models and tools produce
both. Such a character is stored as U+0010 (DATA LINK ESCAPE) and its code in four hexadecimal
digits, ``"a\x00b"`` as ``"a\x100000b"``, and U+0010 itself likewise, so that every string reads
back identical. All other text is stored as it is and stays readable and searchable by SQL.
"""

from __future__ import annotations

import re
from typing import Final

ESCAPE: Final = "\x10"
_UNSTORABLE: Final = re.compile("[\x00\x10\ud800-\udfff]")
_ESCAPED: Final = re.compile("\x10([0-9a-f]{4})")
_CUT_ESCAPE: Final = re.compile("\x10[0-9a-f]{0,3}\\Z")


def encode(text: str) -> str:
    """Return *text* in the form every database can store."""
    if text.isascii() and "\x00" not in text and ESCAPE not in text:
        return text  # what most is: to look for each of all these takes fifty times as long
    return _UNSTORABLE.sub(lambda found: f"{ESCAPE}{ord(found[0]):04x}", text)


def decode(stored: str) -> str:
    """Return the text that *stored* was encoded from.

    Raises:
        ValueError: *stored* holds an escape that ``encode`` never writes.
    """
    if ESCAPE not in stored:
        return stored
    text, count = _ESCAPED.subn(lambda found: chr(int(found[1], 16)), stored)
    if count != stored.count(ESCAPE):
        raise ValueError("broken escape")
    return text


def decode_beginning(stored: str) -> str:
    """Return the text of which *stored* is the beginning, cut off anywhere; raises as ``decode``."""
    return decode(_CUT_ESCAPE.sub("", stored))
