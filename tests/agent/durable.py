"""What tests of durable runs share: a shop's agent, a journal of what was done, and death.

A run of the shop has every kind of step: its model asks for two tools at once, one of them
idempotent, and then answers.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import pytest

from agno_sql.agent.agent import Agent
from agno_sql.agent.context import RunContext  # noqa: TC001  (tools look their types up)
from agno_sql.agent.tools import tool
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Usage
from agno_sql.models.chat_model import ModelReply
from agno_sql.store.engine import open_engine
from tests.agent.models import ScriptedModel, asks, call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from agno_sql.clock import Clock
    from agno_sql.memory.protocol import Memory
    from agno_sql.memory.run_log import RunLog
    from agno_sql.message import Message
    from agno_sql.runs import BegunRun, Ending, Lease, NewRun, RunRecord
    from tests.support.clock import FakeClock

T = TypeVar("T")

Step = Literal["begin", "calls", "first result", "second result", "answer"]
Moment = Literal["uncommitted", "committed"]
ToolName = Literal["look_up", "charge"]

QUESTION: Final = "Is order 1 paid? If not, charge me."
ANSWER: Final = "It is paid now."
LOOKED_UP: Final = "order 1 is not paid"
CHARGED: Final = "charged 5"
ASKING: Final = Usage(100, 20)
ANSWERING: Final = Usage(150, 7)


class Journal:
    """A file with a line for each thing that was really done, by whichever process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, *words: str) -> None:
        """Add a line; those of several processes don't mix."""
        with self.path.open("a") as file:
            file.write(" ".join(words) + "\n")

    def of(self, what: str) -> list[str]:
        """Return the rest of each line that begins with *what*."""
        if not self.path.exists():
            return []
        lines = [line.partition(" ") for line in self.path.read_text().splitlines()]
        return [rest for first, _, rest in lines if first == what]

    def counts(self) -> tuple[int, int, int]:
        """Return how many times the model, look_up and charge were called."""
        return len(self.of("model")), len(self.of("look_up")), len(self.of("charge"))


def shop_agent(memory: Memory, journal: Journal, **parts: Any) -> Agent:
    """Return the shop's agent, which notes in *journal* what it does."""

    @tool(idempotent=True)
    async def look_up(order: int, context: RunContext) -> str:
        journal.note("look_up", context.idempotency_key)
        return f"order {order} is not paid"

    @tool
    async def charge(amount: int, context: RunContext) -> str:
        journal.note("charge", context.idempotency_key)
        return f"charged {amount}"

    def think(shown: Sequence[Message]) -> ModelReply:
        journal.note("model", shown[-1].role)
        if shown[-1].role == "tool":
            return ModelReply(ANSWER, usage=ANSWERING)
        return asks(call("look_up", "c1", order=1), call("charge", "c2", amount=5), usage=ASKING)

    given: dict[str, Any] = {
        "model": ScriptedModel(then=think),
        "tools": [look_up, charge],
        "id": "shop",
    } | parts
    return Agent(name="shop", memory=memory, **given)


class Dying:
    """A memory as the process sees it that dies at one point of a run.

    *before_commit* is called in front of that step's transaction, *die* after it. The result of
    the tool *first* is stored first, once both tools have run.
    """

    def __init__(
        self,
        memory: Memory,
        step: Step,
        moment: Moment,
        *,
        first: ToolName = "look_up",
        before_commit: Callable[[], None],
        die: Callable[[], None],
    ) -> None:
        self._memory = memory
        at = (step, moment)
        log = cast("SQLMemory", memory).run_log
        self._log = _DyingLog(log, at, first, before_commit=before_commit, die=die)

    @property
    def run_log(self) -> RunLog:
        return cast("RunLog", self._log)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


class _DyingLog:
    def __init__(
        self,
        log: RunLog,
        at: tuple[Step, Moment],
        first: ToolName,
        *,
        before_commit: Callable[[], None],
        die: Callable[[], None],
    ) -> None:
        self._log, self._at, self._first = log, at, first
        self._before_commit, self._die = before_commit, die
        self._second_has_run, self._first_is_stored = asyncio.Event(), asyncio.Event()
        self._is_dead = False

    async def begin(self, lease: Lease, new: NewRun, *, limit: int | None) -> BegunRun | None:
        return await self._step("begin", lambda: self._log.begin(lease, new, limit=limit))

    async def append(self, lease: Lease, message: Message) -> Message:
        def store() -> Awaitable[Message]:
            return self._log.append(lease, message)

        if message.tool_calls:
            return await self._step("calls", store)
        if not self._at[0].endswith("result"):
            return await store()
        if message.name == self._first:
            await self._second_has_run.wait()
            stored = await self._step("first result", store)
            self._first_is_stored.set()
            return stored
        self._second_has_run.set()
        await self._first_is_stored.wait()
        return await self._step("second result", store)

    async def complete(self, lease: Lease, answer: Message, *, usage: Usage) -> Message:
        return await self._step("answer", lambda: self._log.complete(lease, answer, usage=usage))

    async def close(self, lease: Lease, ending: Ending) -> None:
        if not self._is_dead:  # the dead store nothing
            await self._log.close(lease, ending)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def _step(self, step: Step, store: Callable[[], Awaitable[T]]) -> T:
        if self._at == (step, "uncommitted"):
            self._is_dead = True
            self._before_commit()
        stored = await store()
        if self._at == (step, "committed"):
            self._is_dead = True
            self._die()
        return stored


class DeathError(Exception):
    """Ends a run as the death of its process does: nothing more is stored."""


@dataclass(frozen=True)
class Shop:
    """A shop on one database: its memory, the clock that its leases go by, its journal."""

    url: str
    memory: SQLMemory
    clock: FakeClock
    journal: Journal

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, clock: Clock, folder: Path) -> AsyncIterator[Shop]:
        async with SQLMemory.open(url, clock=clock) as memory:
            yield cls(url, memory, cast("FakeClock", clock), Journal(folder / "journal"))

    def agent(self, **parts: Any) -> Agent:
        return shop_agent(self.memory, self.journal, **parts)

    async def interrupt(
        self,
        step: Step,
        moment: Moment = "committed",
        *,
        user_id: str = "alice",
        run_id: str = "r-1",
        **parts: Any,
    ) -> None:
        """Begin a run and let it die at that point; its lease has to expire yet."""

        def die() -> None:
            raise DeathError

        dying = cast("Memory", Dying(self.memory, step, moment, before_commit=die, die=die))
        with pytest.raises(DeathError):
            await shop_agent(dying, self.journal, **parts).run(QUESTION, user_id, run_id=run_id)

    async def destroy(self, change: str) -> None:
        """Make one row of alice's one that this library has not written."""
        engine = open_engine(self.url)
        async with engine.begin() as conn:
            changed = await conn.exec_driver_sql(
                f"UPDATE messages SET {change} AND user_id = 'alice'"
            )
            assert changed.rowcount == 1
        await engine.dispose()

    async def record(self, run_id: str = "r-1", user_id: str = "alice") -> RunRecord:
        record = await self.memory.get_run(run_id, user_id)
        assert record is not None
        assert (record.finished_at is None) == (record.status == "running")
        return record

    async def told(self, user_id: str = "alice") -> tuple[str, str | None, str | None]:
        """Return how run r-1 has ended."""
        record = await self.record(user_id=user_id)
        return record.status, record.error_type, record.error_message
