"""Runs of every kind, of which is known beforehand what they do and store."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hypothesis import strategies as st

from agno_sql.agent.context import RunContext  # noqa: TC001  (tools look it up at run time)
from agno_sql.agent.tool_calls import INTERRUPTED_RESULT
from agno_sql.agent.tools import Tool, tool
from agno_sql.errors import ModelUnavailableError
from agno_sql.message import Message, Usage
from agno_sql.models.chat_model import ModelReply
from agno_sql.runs import RunKey
from tests.agent.models import DEADLINE_S, asks, call, contents
from tests.agent.mortal_process import Told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime, timedelta

    from agno_sql.agent.agent import Agent
    from agno_sql.clock import Clock
    from agno_sql.runs import BegunRun, Ending, Lease

ToolName: TypeAlias = Literal["note", "put", "fail", "hang"]

ANSWER = ""  # in the place of an error's name
A_REPLY = Usage(3, 2)  # what each of the model's replies costs


@dataclass(frozen=True)
class Use:
    """A call of a tool; ``late`` is how many turns of the event loop its result is late by."""

    tool: ToolName
    call_id: str
    late: int = 0


@dataclass(frozen=True)
class Script:
    """What the model does in a run: rounds of tool calls, and then?"""

    rounds: tuple[tuple[Use, ...], ...]
    ending: Literal["answer", "error", "rejection"]

    def reply(self, asked: int, text: str) -> ModelReply | Exception:
        """Return what the model says to *text* once *asked* rounds are behind it."""
        if asked < len(self.rounds):
            uses = enumerate(self.rounds[asked])
            wanted = [
                call(use.tool, use.call_id, place=f"{asked}.{position}", late=use.late)
                for position, use in uses
            ]
            return asks(*wanted, text=f"round {asked}", usage=A_REPLY)
        if self.ending == "error":
            return ModelUnavailableError("the provider is down")
        return ModelReply(answer_to(text), usage=A_REPLY)

    def steps(self, text: str) -> list[str]:
        """Return the contents of all that the run stores if nothing stops it, by step."""
        contents = [text]
        for number, uses in enumerate(self.rounds):
            contents.append(f"round {number}")
            contents += [
                result_of(use.tool, f"{number}.{position}") for position, use in enumerate(uses)
            ]
        return [*contents, answer_to(text)]

    def calls(self) -> list[dict[int, Use]]:
        """Return the calls of each round by the steps of their results."""
        found: list[dict[int, Use]] = []
        begins = 1
        for uses in self.rounds:
            found.append(dict(enumerate(uses, start=begins + 1)))
            begins += 1 + len(uses)
        return found

    def fate(self, max_loops: int, lost: set[int]) -> str:
        """Return the name of the error that ends the run, ANSWER if it has an answer.

        *lost* are the steps of the calls that were interrupted: a tool that would wait for the
        run's cancellation does not any more.
        """
        if len(self.rounds) >= max_loops:
            return "MaxLoopsError"
        waits = {step for uses in self.calls() for step, use in uses.items() if use.tool == "hang"}
        if waits - lost:
            return "RunCancelledError"
        errors = {"error": "ModelUnavailableError", "rejection": "OutputRejectedError"}
        return errors.get(self.ending, ANSWER)


def answer_to(text: str) -> str:
    return f"answer to {text}"


def result_of(name: str, place: str) -> str:
    return f"RuntimeError: {place}" if name == "fail" else f"{name} {place}"


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Use, ...]:
    """Return 1 to 3 calls whose ids are unique; those of other rounds have the same ones."""
    names: list[ToolName] = ["note", "put", "fail"]
    ids = draw(st.permutations(["x", "y", "z"]))[: draw(st.sampled_from([1, 2, 2, 3, 3]))]
    return tuple(
        Use(draw(st.sampled_from(names)), call_id, draw(st.integers(0, 2))) for call_id in ids
    )


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Return what a run does; the last call of one in six waits until the run is cancelled."""
    uses = [draw(rounds()) for _ in range(draw(st.sampled_from([1, 0, 1, 2, 2, 3])))]
    if draw(st.integers(0, 5)) == 5:
        uses = [*uses[:2], (Use("hang", "x"),)]
    endings: list[Any] = ["answer", "answer", "answer", "error", "rejection"]
    return Script(tuple(uses), draw(st.sampled_from(endings)))


@dataclass
class KnownRun:
    """A run as the test knows it; without a status the memory must not know it (any more)."""

    key: RunKey
    text: str
    script: Script
    status: str | None = None
    error_type: str | None = None
    attempts: int = 0
    expires_at: datetime | None = None
    cancel_requested: bool = False
    stored: dict[int, str] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    ran: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        self.status, self.error_type, self.attempts = "running", None, 0
        self.cancel_requested = False
        self.stored, self.lost, self.ran = {0: self.text}, set(), Counter()

    def go_on(self) -> None:
        """Take over: what was called and has no result is not called again, as a rule."""
        for step, use in self.open_calls().items():
            if use.tool != "put":
                self.lost.add(step)

    def end(self, status: str, error_type: str | None) -> None:
        self.status, self.error_type, self.expires_at = status, error_type, None

    def open_calls(self) -> dict[int, Use]:
        begun = [uses for uses in self.script.calls() if min(uses) - 1 in self.stored]
        last = begun[-1] if begun else {}
        return {step: use for step, use in last.items() if step not in self.stored}

    def usage(self) -> Usage:
        """Return what the run costs that has an answer."""
        replies = len(self.script.rounds) + 1
        return Usage(A_REPLY.input_tokens * replies, A_REPLY.output_tokens * replies)

    def expected(self, step: int) -> str:
        """Return what the run stores as its *step*."""
        return INTERRUPTED_RESULT if step in self.lost else self.script.steps(self.text)[step]


@dataclass
class Toolbox:
    """The tools of an agent; *at_work* is told of each call, before its result."""

    at_work: Callable[[RunContext, ToolName, str], Awaitable[None]]
    agent: Agent = field(init=False)

    def tools(self) -> list[Tool]:
        async def note(place: str, late: int, context: RunContext) -> str:
            return await self._work("note", place, late, context)

        @tool(idempotent=True)
        async def put(place: str, late: int, context: RunContext) -> str:
            return await self._work("put", place, late, context)

        async def fail(place: str, late: int, context: RunContext) -> str:
            await self._work("fail", place, late, context)
            raise RuntimeError(place)

        async def hang(place: str, late: int, context: RunContext) -> str:
            """Have the run cancelled and wait for that."""
            await self._work("hang", place, late, context)
            await self.agent.cancel_run(
                context.run_id, context.user_id, session_id=context.session_id
            )
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.Event().wait()
            return "never"

        return [tool(note), put, tool(fail), tool(hang)]

    async def _work(self, name: ToolName, place: str, late: int, context: RunContext) -> str:
        await self.at_work(context, name, place)
        for _ in range(late):  # only the event loop decides which result comes first
            await asyncio.sleep(0)
        return result_of(name, place)


class Ledger(Told):
    """What has to be known and stored of each run; what is not so becomes something *wrong*."""

    def __init__(self, clock: Clock, lease: timedelta) -> None:
        self.clock = clock
        self.lease = lease
        self.runs: dict[RunKey, KnownRun] = {}
        self.by_text: dict[str, KnownRun] = {}
        self.unfinished: dict[tuple[str, str], KnownRun] = {}
        self.wrong: list[str] = []
        self._calls: dict[str, tuple[RunKey, str]] = {}

    def add(self, conversation: tuple[str, str], script: Script) -> KnownRun:
        """Return a run that is new to its conversation; each has ids of its own for that."""
        number = sum(1 for key in self.runs if key.conversation == conversation)
        key = RunKey(*conversation, f"run-{number}")
        run = KnownRun(key, f"{' '.join(conversation)} {number}", script)
        self.runs[key] = self.by_text[run.text] = run
        return run

    def of(self, conversation: tuple[str, str]) -> list[KnownRun]:
        return [run for run in self.runs.values() if run.key.conversation == conversation]

    def forget(self, conversation: tuple[str, str]) -> None:
        self.unfinished.pop(conversation, None)
        for run in self.of(conversation):
            run.status = None

    def is_expired(self, run: KnownRun) -> bool:
        return run.expires_at is not None and run.expires_at <= self.clock.now()

    def asked(self, shown: Sequence[Message]) -> tuple[KnownRun, int]:
        """Return the run that *shown* is of, and how many rounds are behind it."""
        begin = max(index for index, message in enumerate(shown) if message.role == "user")
        asked = sum(1 for message in shown[begin:] if message.tool_calls)
        text = shown[begin].content
        if contents(shown, "user").count(text) != 1:
            self.wrong.append(f"{text} is shown more than once")
        return self.by_text[text], asked

    def expected_without_work(self, run: KnownRun, text: str) -> str | None:
        """Return how a run ends that asks no model; ``None`` if it has to work."""
        held = self.unfinished.get(run.key.conversation)
        if run.status is not None and text != run.text:
            return "RunIdReusedError"
        if run.status in ("completed", "failed", "cancelled"):
            before = {"completed": ANSWER, "failed": "RunFailedError"}
            return before.get(run.status, "RunCancelledError")
        if held is not None and not self.is_expired(held):
            return "ConversationBusyError"
        return "RunCancelledError" if held is run and run.cancel_requested else None

    def called(self, context: RunContext, name: str, place: str) -> KnownRun:
        """Check that this call of a tool may happen; return its run."""
        run = self.runs[RunKey(context.user_id, context.session_id, context.run_id)]
        key = context.idempotency_key
        if self._calls.setdefault(key, (run.key, place)) != (run.key, place):
            self.wrong.append(f"two calls have the idempotency key {key}")
        run.ran[place] += 1
        if run.ran[place] > 1 and name != "put":
            self.wrong.append(f"{name} {place} ran again in {run.key}")
        if result_of(name, place) in run.stored.values():
            self.wrong.append(f"{name} {place} ran in {run.key} though its result is stored")
        return run

    def begun(self, lease: Lease, begun: BegunRun | None) -> None:
        run, held = self.runs[lease.key], self.unfinished.get(lease.key.conversation)
        if begun is None:
            if held is run and self.is_expired(run) and run.cancel_requested:
                self._end(run, "cancelled", "RunCancelledError")
            return
        if held is run:
            run.go_on()
        else:
            if held is not None:
                self._end(held, "failed", "RunInterruptedError")
            run.begin()
        run.attempts += 1
        self.unfinished[lease.key.conversation] = run
        self._renew(run)
        if {m.run_step: m.content for m in begun.turn} != run.stored:
            self.wrong.append(f"{run.key} begins with {begun.turn}, not with {run.stored}")

    def appended(self, lease: Lease, message: Message) -> None:
        run, step = self.runs[lease.key], message.run_step or 0
        if step in run.stored or message.content != run.expected(step):
            self.wrong.append(f"{run.key} stored {message}, not {run.expected(step)}")
        run.stored[step] = message.content
        self._renew(run)

    def completed(self, lease: Lease, answer: Message) -> None:
        self.appended(lease, answer)
        self._end(self.runs[lease.key], "completed", None)

    def closed(self, lease: Lease, ending: Ending) -> None:
        self._end(self.runs[lease.key], ending.status, ending.error_type)

    def asked_to_cancel(self, key: RunKey, *, was_running: bool) -> None:
        run = self.unfinished.get(key.conversation)
        if was_running != (run is not None and run.key == key):
            self.wrong.append(f"cancelling {key} told {was_running}, with {run} unfinished")
        elif run is not None and was_running:
            run.cancel_requested = True
            if self.is_expired(run):
                self._end(run, "cancelled", "RunCancelledError")

    def _renew(self, run: KnownRun) -> None:
        run.expires_at = self.clock.now() + self.lease

    def _end(self, run: KnownRun, status: str, error_type: str | None) -> None:
        run.end(status, error_type)
        del self.unfinished[run.key.conversation]
