"""Whatever becomes of runs, what they leave is a history that a provider accepts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall
from tests.agent.run_machine import KEYS, RunMachine, keys

if TYPE_CHECKING:
    from tests.agent.run_machine import Batches
    from tests.agent.scripted_runs import KnownRun

pytestmark = pytest.mark.timeout(600)  # a failure takes its time to shrink

call_ids = st.sampled_from(["x", "y", "z"])  # those that the runs' calls have too
whole: st.SearchStrategy[list[Message]] = st.sampled_from(
    [
        [Message.system("be brief")],
        [Message.user("by hand")],
        [
            Message.assistant("", [ToolCall("x", "f", "{}"), ToolCall("y", "f", "{}")]),
            Message.tool("1", tool_call_id="y"),
            Message.tool("2", tool_call_id="x"),
        ],
    ]
)
pieces = st.one_of(
    st.sampled_from([Message.system("s"), Message.user("u"), Message.assistant("a")]),
    st.lists(call_ids, min_size=1, max_size=3).map(
        lambda ids: Message.assistant("", [ToolCall(call_id, "f", "{}") for call_id in ids])
    ),
    call_ids.map(lambda call_id: Message.tool("t", tool_call_id=call_id)),
)
batches = st.lists(pieces, max_size=3)


class WholeMachine(RunMachine):
    """Between the runs, only whole pieces of a conversation are added by hand."""

    def add(self, data: st.DataObject) -> None:
        idle = [key for key in KEYS if key not in self.ledger.unfinished]
        if not idle:
            return
        key, piece = data.draw(st.sampled_from(idle)), data.draw(whole)
        self.touched.add(key)
        for memory in (self.process, self.in_memory):
            self.do(memory.extend(piece, key[0], session_id=key[1]))


class TornMachine(RunMachine):
    """Anything may be added by hand at any time, between the steps of a run as well.

    What is stored may be anything then, but not what a model is shown.
    """

    is_whole = False

    def draw_batches(self, data: st.DataObject) -> Batches:
        return data.draw(st.lists(batches, max_size=6))

    async def between_steps(self, run: KnownRun) -> None:
        batch = self.batches.pop() if self.batches else []
        user, session, run_id = run.key
        async with self.process.log.lock:
            await self.process.extend(batch, user, session_id=session)
            stored = await self.process.get_messages(user, session_id=session)
        kept = {m.run_step: m.content for m in stored if m.run_id == run_id}
        if kept != run.stored:
            self.ledger.wrong.append(
                f"of {run.stored} only {kept} is kept while {run.key} is at work"
            )

    def add(self, data: st.DataObject) -> None:
        key, batch, one_by_one = data.draw(keys), data.draw(batches), data.draw(st.booleans())
        self.touched.add(key)
        for part in [[message] for message in batch] if one_by_one else [batch]:
            self.do(self.process.extend(part, key[0], session_id=key[1]))


def check(machine: type[RunMachine], url: str, *, examples: int, steps: int) -> None:
    class Machine(machine):  # type: ignore[misc, valid-type]
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


@pytest.fixture
def sqlite_with_tables(sqlite_url: str) -> str:
    async def make_tables() -> None:
        async with SQLMemory.open(sqlite_url):
            pass

    asyncio.run(make_tables())
    return sqlite_url


@pytest.mark.guarantee("G38")
def test_on_sqlite_every_ended_run_leaves_a_history_that_a_provider_accepts(
    sqlite_with_tables: str,
) -> None:
    check(WholeMachine, sqlite_with_tables, examples=20, steps=20)


@pytest.mark.guarantee("G38")
def test_on_postgresql_every_ended_run_leaves_a_history_that_a_provider_accepts(
    postgres_url: str,
) -> None:
    check(WholeMachine, postgres_url, examples=12, steps=20)


@pytest.mark.guarantee("G39")
def test_on_sqlite_no_model_is_shown_what_others_add_between_the_steps_of_a_run(
    sqlite_with_tables: str,
) -> None:
    check(TornMachine, sqlite_with_tables, examples=20, steps=20)


@pytest.mark.guarantee("G39")
def test_on_postgresql_no_model_is_shown_what_others_add_between_the_steps_of_a_run(
    postgres_url: str,
) -> None:
    check(TornMachine, postgres_url, examples=12, steps=20)
