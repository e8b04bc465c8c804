"""Written together or the portable way, what is stored afterwards is the same in every row."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

from agno_sql.errors import AgnoSQLError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.runs import Ending, Lease, NewRun, RunKey
from tests.store.examined import findings, places
from tests.support.clock import FakeClock
from tests.support.runner import everything

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Databases

ROUNDS: Final = 40
LEASE: Final = timedelta(seconds=15)
# The play tears exchanges apart, and leaves runs behind that nobody recovers.
OF_THE_PLAY: Final = ("torn_exchange", "stale_run")
USERS: Final = ("alice", "bob", "o'neil\\\"", "Zoë 🦊", "5")
TEXTS: Final = ("", "hello", "nul \x00 and \ud800", "quote ' \\ \" {}", "🦊 Zoë", "long " * 400)
ENDING: Final = Ending(status="failed", error_type="ValueError", error_message="")

Do: TypeAlias = Callable[[SQLMemory], Awaitable[Any]]


@dataclass
class Talk:
    """A conversation, and the runs that have begun in it: who lost it keeps trying to write."""

    user: str
    leases: list[Lease] = field(default_factory=list)
    steps: int = 0


class Play:
    """Makes up what is done, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.talks = [Talk(user) for user in USERS]
        self._tokens = 0

    def round(self) -> list[list[Do]]:
        """Return what happens at once: in a conversation some appends, or one thing of a run."""
        return [
            self._appends(talk) if self.chance.random() < 0.5 else [self._other(talk)]
            for talk in self.chance.sample(self.talks, self.chance.randint(1, len(self.talks)))
        ]

    def _appends(self, talk: Talk) -> list[Do]:
        return [self._append(talk.user) for _ in range(self.chance.choice([1, 1, 2, 3]))]

    def _append(self, user: str) -> Do:
        pieces = [self._piece() for _ in range(self.chance.choice([1, 1, 1, 2, 3]))]
        new = [message for piece in pieces for message in piece]
        return lambda memory: memory.extend(new, user)

    def _piece(self) -> list[Message]:
        chance, text = self.chance, self.chance.choice(TEXTS)
        match chance.choice(["user"] * 4 + ["answer", "system", "exchange", "calls", "result"]):
            case "system":
                return [Message.system(text)]
            case "exchange":
                calls = [ToolCall(f"c{n}", "f", text) for n in range(chance.randint(1, 3))]
                results = [Message.tool(text, tool_call_id=call.id, name=text) for call in calls]
                return [Message.assistant(text, calls), *results]
            case "calls":
                return [Message.assistant(text, [ToolCall("c0", "f", text)])]
            case "result":
                return [Message.tool(text, tool_call_id=chance.choice(["c0", "c1"]))]
            case "answer":
                return [Message.assistant(text)]
            case _:
                at = chance.choice([None, None, EARLY, FAR])
                return [Message(role="user", content=text, name="n", created_at=at, usage=Usage(3))]

    def _other(self, talk: Talk) -> Do:
        chance = self.chance
        what = chance.choice(
            ["begin"] * 4
            + ["step"] * 6
            + ["complete"] * 3
            + ["close", "resume", "cancel"]
            + ["clear", "erase"]
        )
        if what == "clear":
            return lambda memory: memory.clear(talk.user)
        if what == "erase":
            return lambda memory: memory.erase(talk.user)
        if what == "begin" or not talk.leases:
            return self._begin(talk)
        # Mostly the newest; one that was taken over now and then.
        lease = talk.leases[-1] if chance.random() < 0.8 else chance.choice(talk.leases)
        return self._of_run(what, talk, lease)

    def _begin(self, talk: Talk) -> Do:
        lease = self._lease(talk, self.chance.choice(["r1", "r2", f"r{self._tokens}"]))
        text = self.chance.choice(["go", "go", "stop"])
        run_id = lease.key.run_id
        question = Message(role="user", content=text, run_id=run_id, run_step=0)
        new = NewRun(agent_id="a \x00", model="m", input=question)
        limit = self.chance.choice([None, 0, 1, 3])
        return lambda memory: memory.run_log.begin(lease, new, limit=limit)

    def _lease(self, talk: Talk, run_id: str) -> Lease:
        self._tokens += 1
        lease = Lease(RunKey(talk.user, "default", run_id), f"{self._tokens:032x}", LEASE)
        talk.leases.append(lease)
        return lease

    def _of_run(self, what: str, talk: Talk, lease: Lease) -> Do:
        run_id = lease.key.run_id
        talk.steps += 1
        answer = Message(
            role="assistant",
            content=self.chance.choice(TEXTS),
            tool_calls=self.chance.choice([(), (ToolCall("c0", "f", "{}"),)]),
            run_id=run_id,
            run_step=talk.steps,
            usage=Usage(talk.steps, 7),
        )
        if what == "step":
            return lambda memory: memory.run_log.append(lease, answer)
        if what == "complete":
            usage = Usage(talk.steps, 2**40)
            return lambda memory: memory.run_log.complete(lease, answer, usage=usage)
        if what == "close":
            return lambda memory: memory.run_log.close(lease, ENDING)
        if what == "cancel":
            return lambda memory: memory.run_log.request_cancel(lease.key)
        taken = self._lease(talk, run_id)
        return lambda memory: memory.run_log.resume(taken, limit=2)


EARLY: Final = datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC)
FAR: Final = datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC)


async def told(do: Do, memory: SQLMemory) -> Any:
    """Return the answer, or the class of the error."""
    try:
        return await do(memory)
    except AgnoSQLError as error:
        return type(error)


def first_seq(answer: Any) -> int:
    return answer[0].seq or 0 if isinstance(answer, list) else 0


@pytest.fixture(params=["sqlite", "postgres18"])
def two_urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/one.db", f"sqlite+aiosqlite:///{tmp_path}/two.db"
        return
    postgres: Databases = request.getfixturevalue("postgres_18")
    with postgres.fresh() as one, postgres.fresh() as two:
        yield one, two


@pytest.mark.guarantee("G58")
@pytest.mark.parametrize("capacity", [1, 2, 5, None])
async def test_every_row_is_the_same_whichever_way_it_was_written(
    two_urls: tuple[str, str], capacity: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    play, clock = Play(seed=capacity or 0), FakeClock()
    async with SQLMemory.open(two_urls[0], capacity=capacity, clock=clock) as together:
        monkeypatch.setattr("agno_sql.store.batches.WAYS", {})
        async with SQLMemory.open(two_urls[1], capacity=capacity, clock=clock) as portable:
            for _ in range(ROUNDS):
                clock.advance(timedelta(seconds=play.chance.choice([1, 1, 1, 20])))
                await do_the_same(play.round(), together, portable)
                await read_the_same(play, together, portable)
                assert everything(two_urls[0]) == everything(two_urls[1])
    broken = places(await findings(two_urls[0], now=clock.now()))
    assert [p for p in broken if p["check"] not in OF_THE_PLAY] == []


async def do_the_same(done: list[list[Do]], together: SQLMemory, portable: SQLMemory) -> None:
    """Do all at once in the one, and one after the other in the order of that in the other."""
    answers = iter(await asyncio.gather(*(told(do, together) for dos in done for do in dos)))
    for dos in done:
        expected = [(next(answers), do) for do in dos]
        for answer, do in sorted(expected, key=lambda pair: first_seq(pair[0])):
            assert await told(do, portable) == answer


async def read_the_same(play: Play, together: SQLMemory, portable: SQLMemory) -> None:
    asked: list[tuple[str, int | None, int | None]] = [
        (talk.user, play.chance.choice([None, 0, 1, 4]), play.chance.choice([None, 0, 9]))
        for talk in play.talks
    ]
    found = await asyncio.gather(
        *(together.get_messages(user, limit=limit, before=seq) for user, limit, seq in asked)
    )
    for (user, limit, seq), messages in zip(asked, found, strict=True):
        assert await portable.get_messages(user, limit=limit, before=seq) == messages
