"""The script of a run: what the model wants in it, the same however often the run is resumed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final, Literal

# Sessions are named by their kind and a number.
TALK: Final = "talk"  # runs, one at a time or two that compete; counted
MIXED: Final = "mixed"  # runs and plain messages, at once; counted
NOTES: Final = "notes"  # plain messages; counted
CLEARED: Final = "cleared"  # runs, and now and then everything is deleted
SMALL: Final = "small"  # runs, and only the newest messages are kept
COUNTED: Final = frozenset({TALK, MIXED, NOTES})

SMALL_CAPACITY: Final = 6
MAX_LOOPS: Final = 5
CHARGE, POST, LOOK_UP, MEASURE = "charge", "post", "look_up", "measure"
TOOLS: Final = (CHARGE, POST, LOOK_UP, MEASURE)
IDEMPOTENT: Final = frozenset({LOOK_UP, MEASURE})

_TAG: Final = re.compile(r"<([^|<>]+)\|([^|<>]+)\|([^<>]*)>")


def kind_of(session: str) -> str:
    return session.partition("-")[0]


def tagged(user: str, session: str, what: str) -> str:
    """Return a content that tells where it belongs."""
    return f"<{user}|{session}|{what}>"


def tags_of(content: str) -> list[tuple[str, str, str]]:
    """Return the user, the session and the rest of each tag in *content*."""
    return _TAG.findall(content)


@dataclass(frozen=True)
class Call:
    """A tool call, how long the tool works and whether it raises then."""

    name: str
    seconds: float
    fails: bool


Ending = Literal["answer", "refusal", "endless"]


@dataclass(frozen=True)
class Script:
    """The rounds of tool calls, how long the model thinks before each answer, and the ending."""

    rounds: tuple[tuple[Call, ...], ...]
    thinks_s: float
    ending: Ending

    def round_of(self, number: int) -> tuple[Call, ...]:
        """Return the calls of round *number*, from 0; an endless script repeats its last one."""
        return self.rounds[min(number, len(self.rounds) - 1)]

    def wants_calls(self, rounds_before: int) -> bool:
        return self.ending == "endless" or rounds_before < len(self.rounds)


@lru_cache(maxsize=10_000)
def script_of(run_id: str) -> Script:
    random = Random(run_id)
    rounds = tuple(
        tuple(_call(random) for _ in range(random.choice([1, 1, 2, 3])))
        for _ in range(random.choice([0, 1, 1, 1, 2, 2, 3]))
    )
    endings: list[Ending] = ["answer", "refusal", "endless" if rounds else "answer"]
    (ending,) = random.choices(endings, [94, 4, 2])
    return Script(rounds, random.uniform(0, 0.03), ending)


def _call(random: Random) -> Call:
    seconds = random.choices(
        [0.0, random.uniform(0, 0.05), random.uniform(0.2, 0.6), 2.5], [20, 65, 14, 1]
    )[0]
    return Call(random.choice(TOOLS), round(seconds, 3), random.random() < 0.05)


@dataclass(frozen=True)
class Step:
    """What a step of a run must be: the place of its phase, its role, its round and its call.

    Steps of one phase are stored in any order, those of a later one after them.
    """

    phase: int
    role: str
    round: int = 0
    position: int = 0
    tool: str | None = None


def steps_of(script: Script) -> list[Step]:
    """Return each step that a run of *script* stores if nothing ends it early."""
    steps = [Step(0, "user")]
    number = 0
    while script.wants_calls(number) and number < MAX_LOOPS:
        steps.append(Step(2 * number + 1, "assistant", number + 1))
        steps += [
            Step(2 * number + 2, "tool", number + 1, position, call.name)
            for position, call in enumerate(script.round_of(number))
        ]
        number += 1
    return [*steps, Step(2 * number + 1, "assistant", number + 1)]
