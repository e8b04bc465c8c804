"""A state machine of runs in several conversations, and what must hold of what they store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from sqlalchemy import text as sql

from agno_sql.agent.agent import Agent
from agno_sql.errors import AgnoSQLError, OutputRejectedError
from agno_sql.memory.in_memory import InMemory
from agno_sql.runs import RunKey
from agno_sql.store.engine import open_engine
from agno_sql.testing.wire_rules import violation
from tests.agent.models import ScriptedModel, as_wire, contents
from tests.agent.mortal_process import Death, Process, ProcessDied, deaths, until_it_dies
from tests.agent.scripted_runs import (
    ANSWER,
    KnownRun,
    Ledger,
    Toolbox,
    answer_to,
    scripts,
)
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from agno_sql.agent.context import HookInput, RunContext
    from agno_sql.agent.output import RunOutput
    from agno_sql.memory.protocol import Memory
    from agno_sql.message import Message
    from agno_sql.models.chat_model import ModelReply

Key: TypeAlias = tuple[str, str]
Batches: TypeAlias = "list[list[Message]]"

LEASE = timedelta(seconds=15)
IDLE = timedelta(minutes=1)
USERS = ("alice", "bob")
KEYS = [(user, session) for user in USERS for session in ("default", "work")]
HOLDERS = sql(
    "SELECT run_id FROM conversations "
    "WHERE user_id = :user AND session_id = :session AND run_id IS NOT NULL"
)
RUNS = sql("SELECT run_id, status FROM runs WHERE user_id = :user AND session_id = :session")

# By their weights. The pauses are shorter than a lease, as long, and as long as a user is idle.
STEPS = [
    *["run"] * 8,
    *["run_again"] * 4,
    *["recover"] * 4,
    *["cancel"] * 4,
    *["add"] * 2,
    "delete",
]
PAUSES = [0, 0, 0, 15, 15, 60]

keys = st.sampled_from(KEYS)


class RunMachine(RuleBasedStateMachine):
    """Runs in four conversations, and knows of each run what has to be stored of it."""

    url: ClassVar[str]
    capacities: ClassVar[list[int | None]] = [1, 2, 3, 5, 9, None]
    is_whole: ClassVar[bool] = True  # nobody adds what tears exchanges apart

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.runner = asyncio.Runner()
        self.ledger = Ledger(self.clock, LEASE)
        self.diverged: set[Key] = set()
        self.touched: set[Key] = set()
        self.batches: Batches = []

    @initialize(data=st.data())
    def open(self, data: st.DataObject) -> None:
        self.capacity = data.draw(st.sampled_from(self.capacities))
        self.parts: dict[str, Any] = {
            "max_loops": data.draw(st.sampled_from([4, 4, 4, 3, 2, 1])),
            "history_limit": data.draw(st.none() | st.integers(1, 6)),
            "lease": LEASE,
            "busy_timeout": timedelta(0),
            "post_hooks": [self.judge],
        }
        self.engine = open_engine(self.url)
        self.model = ScriptedModel(then=self.reply)
        self.start_process()
        self.runner.run(self.process.clear_all())
        self.in_memory = InMemory(self.capacity, clock=self.clock)
        mirror_model = ScriptedModel(then=self.mirror_reply)
        self.mirror = self.agent_of(mirror_model, self.in_memory, Toolbox(self.at_work_there))

    def start_process(self) -> None:
        self.process = Process(
            self.engine, capacity=self.capacity, clock=self.clock, told=self.ledger
        )
        self.agent = self.agent_of(self.model, self.process, Toolbox(self.at_work))

    def agent_of(self, model: ScriptedModel, memory: Memory, toolbox: Toolbox) -> Agent:
        toolbox.agent = Agent(
            name="tester", model=model, memory=memory, tools=toolbox.tools(), **self.parts
        )
        return toolbox.agent

    def teardown(self) -> None:
        try:
            if hasattr(self, "process"):
                self.touched.update(KEYS)
                self.check_the_touched()
        finally:
            if hasattr(self, "engine"):
                self.runner.run(self.engine.dispose())
            self.runner.close()

    # What models, tools and hooks do.

    async def reply(self, shown: Sequence[Message]) -> ModelReply | Exception:
        run, asked = self.ledger.asked(shown)
        await self.between_steps(run)
        return run.script.reply(asked, run.text)

    async def at_work(self, context: RunContext, name: str, place: str) -> None:
        await self.between_steps(self.ledger.called(context, name, place))

    async def between_steps(self, run: KnownRun) -> None:
        """Do nothing between the steps of a run."""

    def mirror_reply(self, shown: Sequence[Message]) -> ModelReply | Exception:
        run, asked = self.ledger.asked(shown)
        return run.script.reply(asked, run.text)

    async def at_work_there(self, context: RunContext, name: str, place: str) -> None:
        """Do nothing: in the memory without a database no run is interrupted."""

    async def judge(self, given: HookInput) -> None:
        if self.ledger.by_text[given.input].script.ending == "rejection":
            raise OutputRejectedError("not like this")

    # The rules: one, as Hypothesis would leave out some of many and seldom get to a recovery.

    @rule(what=st.sampled_from(STEPS), seconds=st.sampled_from(PAUSES), data=st.data())
    def step(self, what: str, seconds: int, data: st.DataObject) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        getattr(self, what)(data)

    def run(self, data: st.DataObject) -> None:
        run = self.ledger.add(data.draw(keys), data.draw(scripts()))
        self.batches = self.draw_batches(data)
        self.check_run(run, run.text, data.draw(deaths(len(run.script.steps(run.text)))))

    def run_again(self, data: st.DataObject) -> None:
        run = self.draw_run(data)
        if run is None:
            return
        # What is not known (any more) may begin anew, with whatever input.
        is_other = run.status is not None and data.draw(st.integers(0, 4)) == 4
        self.batches = self.draw_batches(data)
        self.check_run(run, "another input" if is_other else run.text, data.draw(deaths(6)))

    def recover(self, data: st.DataObject) -> None:
        ready = [run for run in self.ledger.unfinished.values() if self.ledger.is_expired(run)]
        wanted = {run.key for run in ready if not run.cancel_requested}
        self.touched.update(run.key.conversation for run in ready)
        self.batches = self.draw_batches(data)
        outputs = self.do(self.agent.recover(), data.draw(deaths(6)))
        if isinstance(outputs, ProcessDied):
            return
        assert not isinstance(outputs, AgnoSQLError)
        answered = {RunKey(o.user_id, o.session_id, o.run_id): o.content for o in outputs}
        assert len(answered) == len(outputs)
        assert answered == {
            run.key: answer_to(run.text)
            for run in ready
            if run.key in wanted and self.fate(run) == ANSWER
        }
        for run in ready:
            fate = self.fate(run) if run.key in wanted else "RunCancelledError"
            assert (run.status, run.error_type) == (status_of(fate), fate or None)

    def cancel(self, data: st.DataObject) -> None:
        run = self.draw_run(data)
        if run is None:
            return
        is_running = run.status == "running"
        user, session, run_id = run.key
        was_running = self.do(self.agent.cancel_run(run_id, user, session_id=session))
        assert was_running is is_running
        self.touched.add(run.key.conversation)

    def add(self, data: st.DataObject) -> None:
        """Add messages by hand."""
        raise NotImplementedError

    def delete(self, data: st.DataObject) -> None:
        key = data.draw(keys)
        how = data.draw(st.sampled_from(["clear", "erase", "clear_all", "inactive", "inactive"]))
        gone = {"clear": [key], "erase": [k for k in KEYS if k[0] == key[0]], "clear_all": KEYS}
        if how == "inactive":
            gone[how] = self.delete_inactive()
        else:
            ways = {
                "clear": lambda: self.process.clear(key[0], session_id=key[1]),
                "erase": lambda: self.process.erase(key[0]),
                "clear_all": self.process.clear_all,
            }
            self.do(ways[how]())
        self.forget(gone[how])

    def delete_inactive(self) -> list[Key]:
        last = {user: self.do(self.process.last_activity(user)) for user in USERS}
        until = self.clock.now() - IDLE
        idle = [user for user, at in last.items() if at is not None and at <= until]
        assert self.do(self.process.delete_inactive(IDLE)) == len(idle)
        return [key for key in KEYS if key[0] in idle]

    # How runs are made and judged.

    def draw_run(self, data: st.DataObject) -> KnownRun | None:
        """Return a run of late; an unfinished one where there is one, as a rule."""
        known = list(self.ledger.runs.values())[-8:]
        unfinished = [*self.ledger.unfinished.values()]
        return data.draw(st.sampled_from([*unfinished * 3, *known])) if known else None

    def draw_batches(self, data: st.DataObject) -> Batches:
        """Return what is added between the steps of a run."""
        return []

    def do(self, work: Coroutine[Any, Any, Any], death: Death | None = None) -> Any:
        """Return what *work* returns or raises; the next process begins if this one dies."""
        self.process.log.doom(death)
        try:
            return self.runner.run(until_it_dies(work))
        except AgnoSQLError as error:
            return error
        except ProcessDied as died:
            self.start_process()
            return died
        finally:
            self.process.log.doom(None)

    def check_run(self, run: KnownRun, text: str, death: Death | None) -> None:
        user, session, run_id = run.key
        expected = self.ledger.expected_without_work(run, text)
        was_status, asked_before, key = run.status, len(self.model.shown), run.key.conversation
        self.touched.add(key)
        given: dict[str, Any] = {"session_id": session, "run_id": run_id}
        outcome = self.do(self.agent.run(text, user, **given), death)
        if isinstance(outcome, ProcessDied):
            if run.status != was_status:
                self.diverged.add(key)
            return
        if expected is not None:
            assert len(self.model.shown) == asked_before, "the model was asked again"
        told = self.fate(run) if expected is None else expected
        self.check_outcome(run, outcome, told)
        if self.is_whole and expected is None and was_status is None and key not in self.diverged:
            mirrored = self.do_in_memory(self.mirror.run(text, user, **given))
            self.check_outcome(run, mirrored, told)

    def fate(self, run: KnownRun) -> str:
        return run.script.fate(self.parts["max_loops"], run.lost)

    def check_outcome(self, run: KnownRun, outcome: RunOutput | AgnoSQLError, told: str) -> None:
        if isinstance(outcome, AgnoSQLError):
            assert type(outcome).__name__ == told, outcome
            return
        assert told == ANSWER
        assert (outcome.run_id, outcome.content) == (run.key.run_id, answer_to(run.text))
        assert outcome.usage == run.usage()
        steps = [message.run_step or 0 for message in outcome.messages]
        assert steps == sorted(steps)
        assert contents(outcome.messages) == [run.stored[step] for step in steps]

    def do_in_memory(self, work: Coroutine[Any, Any, RunOutput]) -> RunOutput | AgnoSQLError:
        try:
            return self.runner.run(work)
        except AgnoSQLError as error:
            return error

    def forget(self, keys: Sequence[Key]) -> None:
        """Expect *keys* to be as if nothing had ever been stored there."""
        self.touched.update(keys)
        self.diverged.difference_update(keys)
        for key in keys:
            self.ledger.forget(key)
            self.runner.run(self.in_memory.clear(key[0], session_id=key[1]))

    # What must hold after each rule.

    @invariant()
    def check_the_touched(self) -> None:
        assert not self.ledger.wrong, "\n".join(self.ledger.wrong)
        refused = [violation(as_wire(shown)) for shown in self.model.shown]
        assert not any(refused), refused
        self.model.shown.clear()
        for key in sorted(self.touched):
            self.runner.run(self.check_conversation(key))
        self.touched.clear()

    async def check_conversation(self, key: Key) -> None:
        stored = await self.process.get_messages(key[0], session_id=key[1])
        assert await self.process.size(key[0], session_id=key[1]) == len(stored)
        others = [message.seq or 0 for message in stored if message.role != "system"]
        if others:
            behind = [m.seq or 0 for m in stored if (m.seq or 0) >= others[0]]
            assert behind == list(range(others[0], others[0] + len(behind)))
        known = await self.check_holder(key)
        for run in self.ledger.of(key):
            kept = [message for message in stored if message.run_id == run.key.run_id]
            if self.check_is_known(run, kept, is_known=run.key.run_id in known):
                await self.check_record(run, kept)
        if key not in self.ledger.unfinished:
            self.check_history(stored)
        if self.is_whole and key not in self.diverged:
            await self.check_equal(key, stored)

    async def check_holder(self, key: Key) -> set[str]:
        """Check that the one running run holds the conversation; return the runs it knows."""
        held_by = self.ledger.unfinished.get(key)
        of = {"user": key[0], "session": key[1]}
        async with self.engine.connect() as conn:
            holders = list((await conn.execute(HOLDERS, of)).scalars())
            known = [(row.run_id, row.status) for row in await conn.execute(RUNS, of)]
        running = [run_id for run_id, status in known if status == "running"]
        assert holders == running == ([] if held_by is None else [held_by.key.run_id])
        return {run_id for run_id, _ in known}

    def check_history(self, stored: list[Message]) -> None:
        """Check what is stored where no run is unfinished."""
        if self.is_whole and stored:
            assert violation(as_wire(stored)) is None
        if self.capacity is not None and len(stored) > self.capacity:
            # Nothing but what is never pruned: system messages, and the newest with its exchange.
            others = [message for message in stored if message.role != "system"]
            newest = stored[-1]
            if newest.role == "tool" and others[0] is not newest:
                assert newest.tool_call_id in {wanted.id for wanted in others[0].tool_calls}
            else:
                assert others == ([] if newest.role == "system" else [newest])

    def check_is_known(self, run: KnownRun, kept: list[Message], *, is_known: bool) -> bool:
        """Check that a run is known as long as messages of it are kept; return whether it is."""
        assert is_known or not kept
        assert is_known or run.status != "running"
        # An end without an answer may have found messages of others behind the run's own.
        if self.is_whole or run.status == "completed":
            assert kept or not is_known
        if not is_known:
            run.status = None
        return is_known

    async def check_record(self, run: KnownRun, kept: list[Message]) -> None:
        user, session, run_id = run.key
        record = await self.process.get_run(run_id, user, session_id=session)
        assert record is not None
        known = (run.status, run.error_type, run.attempts)
        assert (record.status, record.error_type, record.attempt) == known
        assert (record.finished_at is None) == (run.status == "running")
        self.check_steps(run, kept)
        if run.status == "completed":
            assert kept[-1].content == answer_to(run.text)
            assert record.usage == run.usage()

    def check_steps(self, run: KnownRun, kept: list[Message]) -> None:
        """Check that the run's last steps are kept, and all of them while it is unfinished."""
        steps = sorted(message.run_step or 0 for message in kept)
        closing = {} if run.status in ("running", "completed") else run.open_calls()
        wanted = sorted([*run.stored, *closing])
        if run.status == "running":
            assert steps == wanted
        elif self.is_whole:
            assert steps == wanted[-len(steps) :]
        assert len(set(steps)) == len(steps)
        told = f"{run.error_type}: the run ended during this call"
        for message in kept:
            step = message.run_step or 0
            assert message.content.startswith(told if step in closing else run.stored[step])

    async def check_equal(self, key: Key, stored: list[Message]) -> None:
        """Check that an agent with a memory in this process would have left the same."""
        model = await self.in_memory.get_messages(key[0], session_id=key[1])
        assert [(m.role, m.content) for m in stored] == [(m.role, m.content) for m in model]


def status_of(fate: str) -> str:
    return {ANSWER: "completed", "RunCancelledError": "cancelled"}.get(fate, "failed")
