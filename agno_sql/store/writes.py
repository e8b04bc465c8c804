"""What runs and callers write, as records that can be stored together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from agno_sql.message import Message, Usage
    from agno_sql.runs import Lease, NewRun

Kind = Literal["append", "begin", "step", "complete"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Write:
    """Messages for the end of a conversation, and what becomes of its running run.

    An ``append`` is anybody's. ``begin`` takes the lease of a conversation that no run holds;
    ``step`` and ``complete`` are refused unless their lease holds it.
    """

    kind: Kind
    key: tuple[str, str]
    messages: Sequence[Message]
    lease: Lease | None = None
    new: NewRun | None = None
    usage: Usage | None = None

    @property
    def prunes(self) -> bool:
        """Whether the conversation is pruned afterwards."""
        return self.kind in ("append", "complete")

    def goes_with(self, later: Write) -> bool:
        """Tell whether *later*, of the same conversation, can be stored as if it were of this."""
        return (
            self.kind == later.kind
            and self.kind in ("append", "step")
            and (self.lease == later.lease)
        )


@dataclass(slots=True)
class Group:
    """Writes of one conversation that are stored as one; ``places`` tell which these are."""

    first: Write
    messages: list[Message] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, place: int, write: Write) -> None:
        """Put *write* behind what is there."""
        self.messages += write.messages
        self.places.append(place)
        self.ends.append(len(self.messages))

    def last_seqs(self, last_seq: int) -> Iterable[tuple[int, int]]:
        """Return the place of each write with the seq of its last message."""
        first = last_seq - len(self.messages)
        return zip(self.places, (first + end for end in self.ends), strict=True)


# Tells what is to be stored, and the time: called when it can be stored at once.
Begin = Callable[[], "tuple[Sequence[Group], datetime]"]


def grouped(writes: Sequence[Write]) -> list[Group]:
    """Return a group for each conversation; what does not go with its others is in none."""
    groups: dict[tuple[str, str], Group] = {}
    for place, write in enumerate(writes):
        group = groups.setdefault(write.key, Group(write))
        if write is group.first or group.first.goes_with(write):
            group.add(place, write)
    return list(groups.values())


def columns(rows: Iterable[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    """Return *rows*, each of *width* values, as the columns that unnest takes.

    A column of nothing but ``None`` is empty, as unnest fills it up: drivers look at each value.
    """
    return [
        () if column.count(None) == len(column) else column for column in zip(*rows, strict=True)
    ] or [()] * width
