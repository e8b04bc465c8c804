"""Text that arrives in pieces, wrapped at words as it arrives."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len

if TYPE_CHECKING:
    from rich.console import Console

_PIECE: Final = re.compile(r"\n|[^\S\n]+|\S+")
_TAB: Final = "    "


@dataclass(slots=True)
class Flow:
    """Writes to a console; a word that turns out too long for its line moves to the next one."""

    console: Console
    column: int = 0
    _word: str = ""
    _width: int = field(init=False, default=0)

    def write(self, text: str) -> None:
        """Write *text*, which must be safe for a terminal, at once."""
        # One column less: at the very end of a line, terminals disagree about a backspace.
        self._width = self.console.width - 1
        written = text
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            written = "".join(map(self._placed, _PIECE.findall(text.replace("\t", _TAB))))
        elif text:
            self.column = 0 if text.endswith("\n") else 1
        self.console.file.write(written)
        self.console.file.flush()

    def end_line(self) -> None:
        """Begin a new line unless this one is empty."""
        if self.column:
            self.write("\n")

    def erase_line(self) -> None:
        """Take back what was written on this line by blanks over it."""
        self.console.file.write(f"\r{' ' * self.column}\r")
        self.column, self._word = 0, ""

    def _placed(self, piece: str) -> str:
        if piece == "\n":
            self.column, self._word = 0, ""
            return piece
        if piece.isspace():
            return self._placed_space(piece)
        return self._placed_letters(piece)

    def _placed_space(self, spaces: str) -> str:
        self._word = ""
        if self.column + cell_len(spaces) > self._width:
            self.column = 0
            return "\n"
        self.column += cell_len(spaces)
        return spaces

    def _placed_letters(self, letters: str) -> str:
        begun, more = cell_len(self._word), cell_len(letters)
        if self.column + more <= self._width:
            self.column += more
            self._word += letters
            return letters
        if begun < self.column and begun + more <= self._width:
            whole = self._word + letters
            self.column, self._word = begun + more, whole
            return "\b" * begun + " " * begun + f"\n{whole}"
        # Longer than a line: the terminal breaks it where it must.
        self.column, self._word = (self.column + more) % self.console.width, ""
        return letters
