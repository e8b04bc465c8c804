"""Stored text made fit for a terminal, which obeys what it is sent."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

PROGRAM: Final = "agno-sql"

_REPLACEMENT: Final = "\ufffd"
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSAFE_IN_JSON: Final = re.compile("[\x7f-\x9f\ud800-\udfff]")


def safe(text: str) -> str:
    """Return *text* with U+FFFD for control characters, but newline and tab, and surrogates."""
    return _UNSAFE.sub(_REPLACEMENT, text.replace("\r\n", "\n"))


def one_line(text: str, *, at_most: int | None = None) -> str:
    """Return *text*, safe, on one line; cut to *at_most* characters."""
    line = " ".join(safe(text).split())
    return line if at_most is None or len(line) <= at_most else f"{line[: at_most - 1]}…"


def when(moment: datetime | None) -> str:
    """Return a stored time, which is UTC, as it is shown."""
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def counted(number: int, thing: str) -> str:
    """Return *number* with *thing* in singular or plural."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def as_json(value: Any, *, ascii_only: bool) -> str:
    """Return *value* as JSON that loses nothing and holds no character a terminal obeys."""
    text = json.dumps(value, indent=2, ensure_ascii=ascii_only)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def command_line(arguments: Sequence[str]) -> str:
    """Return what to paste into a shell to run this program with *arguments*."""
    words = [*_this_program(), *arguments]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _this_program() -> list[str]:
    """Return how the program was called, by its bare name where that finds the same one."""
    called = Path(sys.argv[0])
    if called.stem != PROGRAM:
        return [sys.executable, "-m", "agno_sql"]
    found = shutil.which(PROGRAM)
    return [PROGRAM if found and Path(found).samefile(called) else str(called)]
