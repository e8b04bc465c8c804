"""Whatever is done to it, the SQL memory answers as the one without a database does."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Role, ToolCall
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agno_sql.memory.protocol import Memory

pytestmark = pytest.mark.timeout(600)  # a failure takes its time to shrink

Answer = TypeVar("Answer")
Key: TypeAlias = tuple[str, str]

KEYS = [(user, session) for user in ("alice", "bob") for session in ("default", "work")]

keys = st.sampled_from(KEYS)
texts = st.text(st.characters(exclude_categories=()), max_size=4)
# Few, so that calls of different exchanges share their ids, as providers let them.
call_ids = st.sampled_from(["x", "y", "z"])


@st.composite
def plain(draw: st.DrawFn) -> list[Message]:
    """Return one message that calls no tool."""
    role: Role = draw(st.sampled_from(["user", "user", "assistant", "system"]))
    return [Message(role=role, content=draw(texts), name=draw(st.none() | texts))]


@st.composite
def results(draw: st.DrawFn) -> list[Message]:
    """Return results of tools, whether somebody asked for them or not."""
    ids = draw(st.lists(call_ids, min_size=1, max_size=3))
    return [Message.tool(draw(texts), tool_call_id=call_id) for call_id in ids]


@st.composite
def exchange(draw: st.DrawFn) -> list[Message]:
    """Return calls of tools and their results: all, none or some, with others in between."""
    ids = draw(st.lists(call_ids, min_size=1, max_size=3))
    calls = [ToolCall(call_id, "f", draw(texts)) for call_id in ids]
    answered = draw(st.permutations(ids))[: draw(st.integers(0, len(ids)))]
    rest = [Message.tool(draw(texts), tool_call_id=call_id) for call_id in answered]
    if draw(st.booleans()):
        rest[draw(st.integers(0, len(rest))) : 0] = draw(plain())
    return [Message.assistant(draw(texts), calls), *rest]


pieces = st.one_of(plain(), results(), exchange())
batches = st.lists(pieces, max_size=4).map(lambda found: [m for piece in found for m in piece])
limits = st.none() | st.integers(0, 12)
befores = st.none() | st.integers(0, 80)


class MemoryMachine(RuleBasedStateMachine):
    """Does the same to both memories and compares the answers."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.capacity: int | None = None

    @initialize(capacity=st.none() | st.integers(1, 7))
    def open(self, capacity: int | None) -> None:
        self.capacity = capacity
        self.model = InMemory(capacity, clock=self.clock)
        opening = SQLMemory.open(self.url, capacity=capacity, migrate=False, clock=self.clock)
        self.memory = self.runner.run(self.stack.enter_async_context(opening))
        self.runner.run(self.memory.clear_all())

    def teardown(self) -> None:
        try:
            if hasattr(self, "memory"):
                for key in KEYS:
                    self.read_everything(key)
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()

    def both(self, ask: Callable[[Memory], Coroutine[Any, Any, Answer]]) -> Answer:
        expected = self.runner.run(ask(self.model))
        answer = self.runner.run(ask(self.memory))
        assert answer == expected
        return answer

    @rule(key=keys, piece=pieces)
    def add_one_by_one(self, key: Key, piece: list[Message]) -> None:
        for message in piece:
            self.add(key, message)
        self.read_everything(key)

    def add(self, key: Key, message: Message) -> None:
        user, session = key
        self.both(lambda memory: memory.add(message, user, session_id=session))

    @rule(key=keys, batch=batches)
    def extend(self, key: Key, batch: list[Message]) -> None:
        user, session = key
        self.both(lambda memory: memory.extend(batch, user, session_id=session))
        self.read_everything(key)

    @rule(key=keys, limit=limits, before=befores)
    def get_messages(self, key: Key, limit: int | None, before: int | None) -> None:
        user, session = key
        self.both(
            lambda memory: memory.get_messages(user, session_id=session, limit=limit, before=before)
        )

    @rule(key=keys)
    def clear(self, key: Key) -> None:
        user, session = key
        self.both(lambda memory: memory.clear(user, session_id=session))
        self.read_everything(key)

    @rule()
    def clear_all(self) -> None:
        self.both(lambda memory: memory.clear_all())

    def read_everything(self, key: Key) -> None:
        user, session = key
        stored = self.both(lambda memory: memory.get_messages(user, session_id=session))
        size = self.both(lambda memory: memory.size(user, session_id=session))
        assert size == len(stored)
        self.check_promises(stored)

    def check_promises(self, stored: list[Message]) -> None:
        """Check what holds whatever the model says: no gap, no torn start, not too much."""
        seqs = [m.seq or 0 for m in stored]
        assert seqs == sorted(set(seqs))
        others = [m.seq or 0 for m in stored if m.role != "system"]
        if others:
            behind = [seq for seq in seqs if seq >= others[0]]
            assert behind == list(range(others[0], seqs[-1] + 1))
        if self.capacity is not None and len(stored) > self.capacity:
            self.check_that_only_the_protected_are_left(stored)

    def check_that_only_the_protected_are_left(self, stored: list[Message]) -> None:
        others = [m for m in stored if m.role != "system"]
        newest = stored[-1]
        if newest.role == "tool" and others[0] is not newest:
            assert newest.tool_call_id in {call.id for call in others[0].tool_calls}
        elif others:
            assert others == [newest]


def check(url: str, *, examples: int, steps: int) -> None:
    class Machine(MemoryMachine):
        pass

    Machine.url = url
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.guarantee("G11")
def test_sqlite_answers_as_the_model_does(sqlite_url: str) -> None:
    async def make_tables() -> None:
        async with SQLMemory.open(sqlite_url):
            pass

    asyncio.run(make_tables())
    check(sqlite_url, examples=60, steps=25)


@pytest.mark.guarantee("G11")
def test_postgresql_answers_as_the_model_does(postgres_url: str) -> None:
    check(postgres_url, examples=20, steps=20)
