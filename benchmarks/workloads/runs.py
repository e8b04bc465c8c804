"""Whole runs of an agent, whose model takes no time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from benchmarks.conversation import WrongMessagesError, answer, check, last_lines, question

if TYPE_CHECKING:
    from benchmarks.driver import Chat
    from benchmarks.stage import Stage


async def runs(chat: Chat, options: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Let *users* at once have *turns* runs each; check the answers, and what is stored."""
    names = [f"user-{n}" for n in range(options["users"])]
    await asyncio.gather(*(chat.run(f"early-{n}", question(f"early-{n}", 0).text) for n in names))
    async with stage.measuring():
        made = await asyncio.gather(*(_user(chat, n, options["turns"], stage) for n in names))
    for name, turns in zip(names, made, strict=True):
        if turns is not None:
            check(await chat.stored(name), last_lines(name, turns, 2 * turns), name)
    return {}


async def _user(chat: Chat, name: str, turns: int, stage: Stage) -> int | None:
    """Return how many runs the user had; None if one failed, and nobody knows what is stored."""
    for turn in range(turns):
        if not stage.has_time:
            return turn
        try:
            async with stage.timing():
                told = await chat.run(name, question(name, turn).text)
        except Exception as error:  # noqa: BLE001  (what a library raises is counted and shown)
            stage.errors.append(f"{type(error).__name__}: {error}"[:300])
            return None
        if told != answer(name, turn).text:
            raise WrongMessagesError(f"{name} was told {told[:60]!r} in turn {turn}")
    return turns
