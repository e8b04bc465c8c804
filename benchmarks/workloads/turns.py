"""Turns: two messages stored, then the newest twenty read, and compared with what they must be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.conversation import WrongMessagesError, check, last_lines, turn_of

if TYPE_CHECKING:
    from benchmarks.driver import Driver
    from benchmarks.stage import Stage

READ: Final = 20


@dataclass(frozen=True, slots=True)
class Turns:
    """*users* at once, *turns* each; and again with new users until *least_seconds* have passed.

    Users' names begin with *name*.
    """

    users: int
    turns: int
    name: str = "user"
    least_seconds: float = 0.0


async def turns(driver: Driver, options: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Let the users of *options* (see Turns) make their turns.

    Each has a namesake who made one turn before, so that connections are open by then.
    """
    wanted = Turns(**options)
    names = [f"{wanted.name}-{n}" for n in range(wanted.users)]
    await asyncio.gather(
        *(one_turn(driver, f"early-{name}", 0) for name in names), return_exceptions=True
    )
    rounds = 0
    async with stage.measuring():
        while rounds == 0 or stage.elapsed < wanted.least_seconds:
            users = [f"{name}-{rounds}" for name in names]
            await asyncio.gather(*(_user(driver, user, wanted.turns, stage) for user in users))
            rounds += 1
    return {"rounds": rounds}


async def _user(driver: Driver, name: str, turns: int, stage: Stage) -> None:
    conversation, done = name, 0
    for _ in range(turns):
        if not stage.has_time:
            return
        try:
            async with stage.timing():
                await one_turn(driver, conversation, done)
            done += 1
        except WrongMessagesError:
            raise
        except Exception as error:  # noqa: BLE001  (what a library raises is counted and shown)
            stage.errors.append(f"{type(error).__name__}: {error}"[:300])
            # Nobody knows what is stored now: the user goes on in a new conversation.
            conversation, done = f"{name}-{len(stage.errors)}", 0


async def one_turn(driver: Driver, user: str, number: int) -> None:
    """Make the user's turn *number*, counted from 0."""
    await driver.append(user, turn_of(user, number))
    check(await driver.read(user, READ), last_lines(user, number + 1, READ), user)
