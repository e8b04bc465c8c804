"""An answer on a terminal, shown as it arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.text import Text

from agno_sql.agent.events import RunFailed, TextDelta, ToolCalled
from agno_sql.cli.console import is_unicode
from agno_sql.cli.text import one_line, safe

if TYPE_CHECKING:
    from rich.console import Console

    from agno_sql.agent.events import RunEvent

_MOST_OF_A_CALL: Final = 100
_STYLES: Final = {"user": "bold cyan", "assistant": "bold green", "system": "bold magenta"}


def label(role: str) -> Text:
    """Return what stands in front of what *role* says."""
    return Text.assemble(("you" if role == "user" else role, _STYLES[role]), " > ")


def call_text(console: Console, name: str, arguments: str) -> Text:
    """Return the line that tells of a tool call."""
    call = one_line(f"{name}({arguments})", at_most=_MOST_OF_A_CALL)
    return Text(f"  {'→' if is_unicode(console) else '->'} {call}", style="dim")


def result_text(console: Console, result: str) -> Text:
    """Return the line that tells what a tool returned."""
    short = one_line(result, at_most=_MOST_OF_A_CALL)
    return Text(f"  {'←' if is_unicode(console) else '<-'} {short}", style="dim")


@dataclass(slots=True)
class Answer:
    """Shows the events of one run; ``end`` it whatever happens, so that the next line is free."""

    console: Console
    _is_open: bool = False
    _line_is_free: bool = True

    def begin(self) -> None:
        """Show who will speak, for as long as the model thinks."""
        self.console.print(label("assistant"), end="")
        self._is_open, self._line_is_free = True, False

    def show(self, event: RunEvent) -> None:
        """Show *event*; a RunFailed raises its error."""
        match event:
            case TextDelta(text):
                if not self._is_open:
                    self.begin()
                self.console.file.write(safe(text))
                self.console.file.flush()
                self._line_is_free = text.endswith("\n")
            case ToolCalled(call):
                self.end()
                self.console.print(call_text(self.console, call.name, call.arguments))
            case RunFailed(error):
                raise error
            case _:
                pass

    def end(self) -> None:
        """Leave the cursor on an empty line."""
        if not self._line_is_free:
            self.console.print()
        self._is_open, self._line_is_free = False, True
