"""What is stored and read: texts that say whose they are, so that a mix-up can't go unseen."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

USER_BYTES: Final = 200
ASSISTANT_BYTES: Final = 800

_PROSE: Final = (
    "Thanks for writing. I have looked at your order and it left our warehouse on Tuesday; the "
    "carrier shows it at the depot of your town. You can change the delivery day until 6 p.m., "
    "collect it at a shop near you, or leave it with a neighbour. If the parcel has not come by "
    "Friday, reply here and we send a new one the same day, without any charge. "
)
PADDING: Final = _PROSE * 4
# As many lines as 64 users read again at their next turn: to make them anew took a sixth of a
# fast driver's time.
_kept: Final = lru_cache(maxsize=1024)


class Line(NamedTuple):
    """One message: who said it, ``user`` or ``assistant``, and what."""

    role: str
    text: str


class WrongMessagesError(Exception):
    """What was read is not what was written."""


@_kept
def question(user: str, turn: int) -> Line:
    """Return what *user* says in *turn*: 200 bytes that occur once."""
    return Line("user", f"{user} asks, turn {turn}: {PADDING}"[:USER_BYTES])


@_kept
def answer(user: str, turn: int) -> Line:
    """Return what is said to *user* in *turn*: 800 bytes that occur once."""
    return Line("assistant", f"To {user}, turn {turn}: {PADDING}"[:ASSISTANT_BYTES])


def turn_of(user: str, turn: int) -> list[Line]:
    """Return the two messages of a turn."""
    return [question(user, turn), answer(user, turn)]


def last_lines(user: str, turns: int, limit: int) -> list[Line]:
    """Return the newest *limit* messages of *user* after *turns* turns, oldest first."""
    first = max(0, turns - (limit + 1) // 2)
    lines = [line for turn in range(first, turns) for line in turn_of(user, turn)]
    return lines[-limit:]


def check(found: list[Line], expected: list[Line], user: str) -> None:
    """Raise WrongMessagesError unless *found* is *expected*, in order and to the letter."""
    if found == expected:
        return
    at = next(
        (n for n, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
        min(len(found), len(expected)),
    )
    raise WrongMessagesError(
        f"{user}: read {len(found)} messages, expected {len(expected)}; the first difference is "
        f"at {at}: {found[at : at + 1]} instead of {expected[at : at + 1]}"
    )


def reply_to(text: str) -> str:
    """Return the answer to a question, as a model that needs no time gives it."""
    user, _, rest = text.partition(" asks, turn ")
    number, _, _ = rest.partition(":")
    return answer(user, int(number)).text
