"""One run: from the user's message, through rounds of tool calls, to the answer.

It holds its conversation by a lease, and stores each step before it takes the next, so that
another process can go on from there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from agno_sql.agent.calling import call
from agno_sql.agent.context import HookInput
from agno_sql.agent.ending import check_is_same, ended_output, ending_of
from agno_sql.agent.events import RunEvent, TextDelta, ToolCalled, ToolReturned
from agno_sql.agent.output import RunOutput
from agno_sql.agent.tool_calls import INTERRUPTED_RESULT, call_context, find_tool, tool_result
from agno_sql.errors import (
    MaxLoopsError,
    OutcomeUnknownError,
    RunError,
    RunInterruptedError,
    RunTimeoutError,
    StoreUnavailableError,
    StreamCutError,
)
from agno_sql.exchange import open_calls
from agno_sql.memory.live import LiveRuns, busy, live_runs
from agno_sql.memory.volatile import run_log_of
from agno_sql.memory.window import window
from agno_sql.message import Message, Role, ToolCall, Usage
from agno_sql.models.chat_model import ModelReply
from agno_sql.runs import BegunRun, Lease, NewRun, RunKey
from agno_sql.settled import settled_soon

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import timedelta

    from agno_sql.agent.agent import Agent
    from agno_sql.memory.run_log import RunLog

_T = TypeVar("_T")

_log: Final = logging.getLogger(__name__)
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.25


@dataclass(slots=True, kw_only=True)
class Run:
    """The state of one run; its agent is shared, this is not.

    *is_named* says that the caller gave the run_id, so that there may be an earlier run of it. With
    *emit* the model's answers are streamed and events told as they happen.
    """

    agent: Agent
    key: RunKey
    is_named: bool = False
    timeout: timedelta | None = None
    emit: Callable[[RunEvent], None] | None = None
    lease: Lease = field(init=False)
    log: RunLog = field(init=False)
    live: LiveRuns = field(init=False)
    task: asyncio.Task[Any] = field(init=False)
    history: list[Message] = field(init=False, default_factory=list)
    turn: list[Message] = field(init=False, default_factory=list)
    usage: Usage = field(init=False, default_factory=Usage)
    interrupted_steps: frozenset[int] = field(init=False, default=frozenset())
    may_hold: bool = field(init=False, default=False)
    is_judged: bool = field(init=False, default=False)
    is_stopping: bool = field(init=False, default=False)
    stopped_by: RunError | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.lease = Lease(self.key, uuid4().hex, self.agent.lease)
        self.log = run_log_of(self.agent.memory)

    async def execute(self, new: NewRun) -> RunOutput:
        """Run to the end; return the answer, which is stored then, perhaps by an earlier run."""
        return await self._guarded(self._start(new))

    async def resume(self) -> RunOutput | None:
        """Go on with an interrupted run to its end; ``None`` if it is not interrupted any more."""
        return await self._guarded(self._take_over())

    async def _start(self, new: NewRun) -> RunOutput:
        found = await self.log.find(self.key) if self.is_named else None
        if found is None:
            # Once for each input: one that is stored was accepted.
            for hook in self.agent.pre_hooks:
                await call(hook, self._hook_input(new.input.content))
        elif found.record.status != "running":
            return ended_output(found, new)
        else:
            check_is_same(found, new)
        within_s = self.agent.busy_timeout.total_seconds()
        give_up_at = asyncio.get_running_loop().time() + within_s
        async with self.live.turn(self.key.conversation, within_s=within_s):
            begun = await self._begin(new, give_up_at)
            return begun if isinstance(begun, RunOutput) else await self._hold(begun)

    async def _begin(self, new: NewRun, give_up_at: float) -> BegunRun | RunOutput:
        """Return when the conversation is this run's, or an earlier one of its id has ended."""
        pause = _FIRST_PAUSE_S
        while True:
            self.may_hold = True
            begun = await self.log.begin(self.lease, new, limit=self.agent.history_limit)
            if begun is not None:
                return begun
            self.may_hold = False
            found = await self.log.find(self.key) if self.is_named else None
            if found is not None:
                check_is_same(found, new)
                if found.record.status != "running":
                    return ended_output(found, new)
            # One poller for each conversation of a process: the others wait for their turn.
            is_free = False
            while not is_free:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise busy(self.key.conversation, self.agent.busy_timeout.total_seconds())
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  (jitter)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                is_free = await self.log.is_free(*self.key.conversation)

    async def _take_over(self) -> RunOutput | None:
        if self.live.is_queued(self.key.conversation):
            return None
        async with self.live.turn(self.key.conversation, within_s=0):
            self.may_hold = True
            begun = await self.log.resume(self.lease, limit=self.agent.history_limit)
            self.may_hold = begun is not None
            return None if begun is None else await self._hold(begun)

    async def _hold(self, begun: BegunRun) -> RunOutput:
        self.turn = list(begun.turn)
        self.history = window(begun.history, self.agent.history_limit)
        self.usage = sum((m.usage for m in self.turn if m.usage), Usage())
        self.interrupted_steps = frozenset(step for step, _ in open_calls(self.turn))
        self._retell()
        async with self.live.kept(self.lease, self._stop):
            return await self._answer()

    def _retell(self) -> None:
        """Tell what an earlier process has stored: who reads a stream gets all of the run."""
        calls: dict[int | None, ToolCall] = {}
        for message in self.turn[1:]:
            if message.role == "tool":
                self._tell(ToolCalled(calls[message.run_step]))
                self._tell(ToolReturned(calls[message.run_step], message))
            else:
                if message.content:
                    self._tell(TextDelta(message.content))
                calls |= enumerate(message.tool_calls, start=(message.run_step or 0) + 1)

    async def _answer(self) -> RunOutput:
        while True:
            await self._call_tools()
            rounds = sum(1 for message in self.turn if message.tool_calls)
            reply = await self._ask()
            self.usage += reply.usage
            if not reply.tool_calls:
                return await self._finish(reply)
            if rounds + 1 >= self.agent.max_loops:
                raise MaxLoopsError(
                    f"the model still called tools in its last of {self.agent.max_loops} calls; "
                    "raise max_loops or make the task smaller",
                    output=self._output(reply.content),
                )
            await self._store(
                self._message(
                    "assistant",
                    reply.content,
                    step=len(self.turn),
                    tool_calls=reply.tool_calls,
                    usage=reply.usage,
                )
            )

    async def _ask(self) -> ModelReply:
        instructions = self.agent.instructions
        shown = [Message.system(instructions)] if instructions else []
        shown += [*self.history, *window(self.turn)]
        specs = [tool.spec for tool in self.agent.tools]
        if self.emit is None:
            return await self.agent.model.reply(shown, specs)
        async with aclosing(self.agent.model.stream(shown, specs)) as pieces:
            async for piece in pieces:
                if isinstance(piece, ModelReply):
                    return piece
                self.emit(TextDelta(piece))
        raise StreamCutError(f"{self.agent.model.name}: the stream ended without a reply")

    async def _finish(self, reply: ModelReply) -> RunOutput:
        self.is_judged = True
        for hook in self.agent.post_hooks:
            await call(hook, self._hook_input(self.turn[0].content, reply.content))
        self.is_judged = False
        answer = self._message("assistant", reply.content, step=len(self.turn), usage=reply.usage)
        self.turn.append(await self.log.complete(self.lease, answer, usage=self.usage))
        self.may_hold = False
        return self._output(reply.content)

    async def _call_tools(self) -> None:
        """Make the open calls of the last round, all at once; each result is stored as it comes."""
        calls = [
            asyncio.create_task(self._call_tool(wanted, step))
            for step, wanted in open_calls(self.turn)
        ]
        if not calls:
            return
        # No TaskGroup: where a child fails, Python 3.11 leaves its parent marked as cancelled.
        try:
            await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.is_stopping = True
            for one in calls:
                one.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        for one in calls:
            one.result()  # a tool's own error is a result: what is raised here is the store's
        self.is_stopping = False

    async def _call_tool(self, wanted: ToolCall, step: int) -> None:
        self._tell(ToolCalled(wanted))
        result = self._message(
            "tool",
            await self._tool_result(wanted, step),
            step=step,
            name=wanted.name,
            tool_call_id=wanted.id,
        )
        self._tell(ToolReturned(wanted, await self._store(result)))

    async def _tool_result(self, wanted: ToolCall, step: int) -> str:
        if step in self.interrupted_steps:
            tool = find_tool(self.agent.tools, wanted.name)
            if tool is None or not tool.idempotent:
                return INTERRUPTED_RESULT
        rounds = [message.run_step or 0 for message in self.turn if message.tool_calls]
        return await tool_result(
            self.agent.tools,
            wanted,
            call_context(
                self.key, wanted, round_number=len(rounds), position=step - rounds[-1] - 1
            ),
            is_stopped=lambda: self.is_stopping,
        )

    async def _store(self, message: Message) -> Message:
        stored = await self.log.append(self.lease, message)
        self.turn.append(stored)
        self.turn.sort(key=lambda message: message.run_step or 0)
        return stored

    async def _guarded(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what *work* returns; whatever ends it early ends the run, and that is stored."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine runs in one)
        self.task, self.live = task, live_runs(self.log)
        cancelled_before = task.cancelling()
        seconds = None if self.timeout is None else self.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds) as limit:
                try:
                    try:
                        with self.live.stoppable(self.agent.id, self._stop):
                            return await work
                    except BaseException as error:
                        cause = self._cause(error, limit)
                        await self._close(cause)
                        if cause is not self.stopped_by or task.cancelling() > cancelled_before + 1:
                            raise  # others have cancelled too: theirs goes on
                        raise cause from None
                finally:
                    if self.stopped_by is not None:
                        task.uncancel()  # what was cancelled for us, whatever came of it
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._timed_out() from error

    def _cause(self, error: BaseException, limit: asyncio.Timeout) -> BaseException:
        """Return why the run ends, where *error* may be a cancellation that we asked for."""
        if not isinstance(error, asyncio.CancelledError):
            return error
        return self._timed_out() if limit.expired() else self.stopped_by or error

    def _timed_out(self) -> RunTimeoutError:
        seconds = 0 if self.timeout is None else self.timeout.total_seconds()
        return RunTimeoutError(f"run {self.key.run_id} took longer than {seconds:g} s")

    async def _close(self, error: BaseException) -> None:
        if not self.may_hold:
            return
        # Without its database a run is interrupted, not failed: it can be gone on with.
        is_interrupted = isinstance(error, RunInterruptedError) or (
            not self.is_judged and isinstance(error, StoreUnavailableError | OutcomeUnknownError)
        )
        try:
            await settled_soon(
                self.log.park(self.lease)
                if is_interrupted
                else self.log.close(self.lease, ending_of(error, self.usage))
            )
        except Exception as failure:  # noqa: BLE001  (what ended the run must come through)
            _log.warning(
                "run %s is interrupted: its end could not be stored: %s: %s",
                self.key.run_id,
                type(failure).__name__,
                failure,
            )

    def _stop(self, error: RunError) -> None:
        """End the run with *error*, which came from outside."""
        if self.stopped_by is None:
            self.stopped_by = error
            self.task.cancel()

    def _tell(self, event: RunEvent) -> None:
        if self.emit is not None:
            self.emit(event)

    def _message(self, role: Role, content: str, *, step: int, **more: Any) -> Message:
        return Message(role=role, content=content, run_id=self.key.run_id, run_step=step, **more)

    def _hook_input(self, asked: str, output: str | None = None) -> HookInput:
        return HookInput(
            user_id=self.key.user_id,
            session_id=self.key.session_id,
            run_id=self.key.run_id,
            input=asked,
            output=output,
        )

    def _output(self, content: str) -> RunOutput:
        return RunOutput(
            content=content,
            user_id=self.key.user_id,
            session_id=self.key.session_id,
            run_id=self.key.run_id,
            model=self.agent.model.name,
            messages=tuple(self.turn),
            usage=self.usage,
        )
