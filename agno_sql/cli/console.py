"""Printing and asking, by way of rich; nothing is read as markup."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from agno_sql.cli.text import as_json, one_line

if TYPE_CHECKING:
    from rich.console import JustifyMethod


class Misuse(typer.BadParameter):
    """A usage error that is not about the form of one value."""

    def format_message(self) -> str:
        """Return the message alone, without the name of an option in front."""
        return self.message


def out() -> Console:
    """Return a console on stdout."""
    return Console(markup=False, emoji=False, highlight=False)


def err() -> Console:
    """Return a console on stderr."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def say_error(error: Exception) -> None:
    """Print *error* as one red line on stderr."""
    err().print(Text(f"error: {one_line(str(error))}", style="red"), soft_wrap=True)


def note(text: str) -> None:
    """Print *text* on stderr, where it does not get into what a script reads."""
    err().print(Text(text, style="dim"), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print *value* as JSON on stdout."""
    can_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(f"{as_json(value, ascii_only=not can_unicode)}\n")


def is_unicode(console: Console) -> bool:
    """Tell whether signs beyond ASCII can be shown."""
    return console.encoding.startswith("utf")


def styled(text: str, style: str = "", justify: JustifyMethod | None = None) -> Text:
    """Return *text* for a cell or a line, taken literally."""
    return Text(text, style=style, justify=justify)


def is_terminal() -> bool:
    """Tell whether somebody sits in front who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirmed(question: str) -> bool:
    """Ask *question* on the terminal; only an explicit yes is one."""
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        print()  # noqa: T201  (ends the line of the question)
        return False
    return answer.strip().lower() in ("y", "yes")
