"""The agent: one instance serves any number of users."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from agno_sql.agent.events import RunCompleted, RunFailed
from agno_sql.agent.output import RunOutput
from agno_sql.agent.run import Run
from agno_sql.agent.tools import collect_tools
from agno_sql.errors import AgnoSQLError, InvalidOptionError
from agno_sql.ids import (
    DEFAULT_SESSION,
    named_user_id,
    shown,
    valid_run_id,
    valid_session_id,
    valid_user_id,
)
from agno_sql.memory.limits import at_least, valid_duration
from agno_sql.memory.live import live_runs
from agno_sql.memory.volatile import run_log_of
from agno_sql.message import Message
from agno_sql.runs import NewRun, RunKey

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from agno_sql.agent.context import HookInput
    from agno_sql.agent.events import RunEvent
    from agno_sql.agent.tools import Tool, Toolkit
    from agno_sql.memory.protocol import Memory
    from agno_sql.models.chat_model import ChatModel

    Hook = Callable[[HookInput], object]

_log: Final = logging.getLogger(__name__)
_RECOVERED_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class Agent:
    """A model with a memory, instructions and tools, for any number of users.

    Immutable and safe to share between any number of tasks: each call names its user, and nothing
    of a call is kept here.

    Args:
        name: What the agent is called.
        model: The language model.
        memory: Where the conversations are kept.
        instructions: Put in front of every model call for every user, never stored.
        tools: Functions, tools and toolkits that the model may call.
        id: What identifies the agent over restarts; its name where not given.
        max_loops: How many times a run may call the model, at least 1.
        user_id: Whom a call that names no user is for; ``None`` is the user ``"default"``.
        pre_hooks: Called with a HookInput before anything is stored; one that raises (an
            InputRejectedError, say) ends the run.
        post_hooks: Called with the answer before it is stored; one that raises (an
            OutputRejectedError, say) ends the run without storing it.
        history_limit: How many of the stored messages the model is shown, at least 1; ``None``
            shows all that are kept. Stored system messages are always shown.
        lease: How long a run keeps its conversation after its process went away, 0.1 s to a day;
            it is renewed after each third of that. The clocks of all processes should agree
            within a third.
        busy_timeout: How long a run waits for another one of its conversation.

    Raises:
        InvalidToolError: Two tools have the same name, or one can't be offered to a model.
        InvalidUserIdError, InvalidOptionError: Another argument is out of its bounds.
    """

    name: str
    model: ChatModel
    memory: Memory
    instructions: str
    tools: tuple[Tool, ...]
    id: str
    max_loops: int
    user_id: str | None
    pre_hooks: tuple[Hook, ...]
    post_hooks: tuple[Hook, ...]
    history_limit: int | None
    lease: timedelta
    busy_timeout: timedelta

    def __init__(  # noqa: PLR0913  (an agent has that many parts, all by keyword)
        self,
        *,
        name: str,
        model: ChatModel,
        memory: Memory,
        instructions: str = "",
        tools: Iterable[Tool | Toolkit | Callable[..., Any]] = (),
        id: str | None = None,  # noqa: A002  (what others call it too)
        max_loops: int = 10,
        user_id: str | None = None,
        pre_hooks: Iterable[Hook] = (),
        post_hooks: Iterable[Hook] = (),
        history_limit: int | None = None,
        lease: timedelta = timedelta(seconds=15),
        busy_timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        parts = {
            "name": name,
            "model": model,
            "memory": memory,
            "instructions": instructions,
            "tools": collect_tools(tools),
            "id": name if id is None else id,
            "max_loops": at_least(1, max_loops, "max_loops"),
            "user_id": None if user_id is None else named_user_id(user_id),
            "pre_hooks": tuple(pre_hooks),
            "post_hooks": tuple(post_hooks),
            "history_limit": (
                None if history_limit is None else at_least(1, history_limit, "history_limit")
            ),
            "lease": valid_duration(
                lease, "lease", least=timedelta(seconds=0.1), most=timedelta(days=1)
            ),
            "busy_timeout": valid_duration(busy_timeout, "busy_timeout"),
        }
        for field, value in parts.items():
            object.__setattr__(self, field, value)

    def __repr__(self) -> str:
        return f"Agent(name={self.name!r}, id={self.id!r}, model={self.model.name!r})"

    async def run(
        self,
        input: str,  # noqa: A002  (the word every agent library uses)
        user_id: str | None = None,
        *,
        session_id: str = DEFAULT_SESSION,
        run_id: str | None = None,
        timeout: timedelta | None = None,  # noqa: ASYNC109  (it also names the error)
    ) -> RunOutput:
        """Answer the user's *input* and store both.

        One run at a time works in a conversation, in whatever process; others wait, first come
        first served within a process. The user's message, each message of the model that calls
        tools, and each tool's result are stored before the next step. A run that fails or is
        cancelled leaves them, in a conversation that a provider accepts. One whose process dies is
        *interrupted*: ``recover``, or ``run`` with the same run_id, goes on with it.

        Args:
            input: The user's message.
            user_id: The tenant; ``None`` is the agent's own ``user_id``, else ``"default"``.
            session_id: The user's conversation.
            run_id: What makes a repetition safe, 1 to 128 visible ASCII characters: the same
                run_id again returns the stored answer, waits for it while the run is at work, or
                raises what became of it. Known as long as the run's messages are kept; generated
                where not given.
            timeout: How long the whole run may take.

        Raises:
            InvalidUserIdError, InvalidSessionIdError, InvalidRunIdError, InvalidMessageError,
                InvalidOptionError: An argument breaks its rules; nothing was stored.
            RunIdReusedError: The run_id was used for another input, or by another agent.
            ConversationBusyError: Another run had the conversation all of ``busy_timeout``.
            RejectedError: A hook rejected the input or the answer.
            ModelError: The provider refused or failed; tells whether trying again may help.
            MaxLoopsError: The model kept calling tools; carries the partial output.
            RunTimeoutError: The run took longer than *timeout*.
            RunFailedError, RunCancelledError: The run of this run_id ended so before;
                RunCancelledError also if somebody cancels it now (``cancel_run``).
            RunLostError: The process had stood still for longer than the lease and another took
                the run over, or its conversation was cleared.
            StoreError: The database refused or could not be reached.
        """
        run, new = self._new_run(input, user_id, session_id, run_id, timeout)
        return await run.execute(new)

    def stream(
        self,
        input: str,  # noqa: A002  (as in run)
        user_id: str | None = None,
        *,
        session_id: str = DEFAULT_SESSION,
        run_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> AsyncGenerator[RunEvent, None]:
        """Answer as ``run`` does, and tell what happens as it happens.

        The last event is RunCompleted, or RunFailed with the AgnoSQLError that ``run`` would
        raise. Arguments that break their rules raise at once; an error of a hook's own is raised
        to the reader. Text deltas come before post hooks judge the answer. An interrupted run that
        is gone on with is told from its beginning. Closing the generator,
        or cancelling the task that reads it, cancels the run; a slow reader does not slow it down.
        """
        return _events(*self._new_run(input, user_id, session_id, run_id, timeout))

    async def recover(self) -> list[RunOutput]:
        """Go on with this agent's interrupted runs, of all users, and return their answers.

        A run is interrupted when its lease has expired: call this at the start of a process, and
        again from time to time.

        An agent's runs are those of its ``id``. Finished steps are not repeated; a tool call
        without a result is made again if its tool is idempotent, with the same idempotency key,
        else its result says that its outcome is unknown. What can't be resumed is closed as
        failed. Safe to call from any number of processes at once, and again and again: each run
        is recovered once, and one that is at work is left alone.

        A run that fails is told in the log, and by its run_id.

        Raises:
            StoreError: Looking for interrupted runs failed.
        """
        log, after = run_log_of(self.memory), None
        outputs: list[RunOutput] = []
        while page := await log.interrupted(self.id, limit=_RECOVERED_AT_ONCE, after=after):
            after = page[-1]
            answers = await asyncio.gather(*map(self._recover, page), return_exceptions=True)
            outputs += [answer for answer in answers if isinstance(answer, RunOutput)]
        return outputs

    async def cancel_run(
        self, run_id: str, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION
    ) -> bool:
        """Cancel a run that is at work, in whatever process; return whether it was running.

        Another process sees it when it renews its lease next, within a third of that. Whoever
        waits for the run gets RunCancelledError.
        """
        log = run_log_of(self.memory)
        key = RunKey(self._user(user_id), valid_session_id(session_id), valid_run_id(run_id))
        was_running = await log.request_cancel(key)
        live_runs(log).look_now()
        return was_running

    def interrupt_runs(self) -> int:
        """Interrupt this agent's runs in the running event loop; return how many there are.

        For a process that has to stop: its runs end with RunInterruptedError, and what they have
        stored stays as it is. They give their leases back, so ``recover`` of another process, or
        ``run`` with the same run_id, goes on with them at once. A run that waits for its turn has
        stored nothing and is not known afterwards.
        """
        return live_runs(run_log_of(self.memory)).interrupt_all(self.id)

    async def clear_memory(
        self, user_id: str | None = None, *, session_id: str = DEFAULT_SESSION
    ) -> None:
        """Delete the messages of one of the user's conversations."""
        await self.memory.clear(self._user(user_id), session_id=session_id)

    def _user(self, user_id: str | None) -> str:
        return valid_user_id(self.user_id if user_id is None else user_id)

    def _new_run(
        self,
        text: str,
        user_id: str | None,
        session_id: str,
        run_id: str | None,
        timeout: timedelta | None,
    ) -> tuple[Run, NewRun]:
        if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta(0)):
            raise InvalidOptionError(
                f"timeout must be a timedelta of more than zero, got {shown(timeout)}"
            )
        key = RunKey(
            self._user(user_id),
            valid_session_id(session_id),
            uuid4().hex if run_id is None else valid_run_id(run_id),
        )
        new = NewRun(
            agent_id=self.id,
            model=self.model.name,
            input=Message(role="user", content=text, run_id=key.run_id, run_step=0),
        )
        return Run(agent=self, key=key, is_named=run_id is not None, timeout=timeout), new

    async def _recover(self, key: RunKey) -> RunOutput | None:
        try:
            return await Run(agent=self, key=key).resume()
        except AgnoSQLError as error:
            _log.warning("run %s was not answered: %s: %s", key.run_id, type(error).__name__, error)
        except Exception:  # noqa: BLE001  (a hook's own is stored too, and the next run goes on)
            _log.exception("run %s was not answered", key.run_id)
        return None


async def _events(run: Run, new: NewRun) -> AsyncGenerator[RunEvent, None]:
    # The run is a task of its own: its time limit and its cancellation then have nothing to do
    # with when and where the reader asks for the next event.
    events: asyncio.Queue[RunEvent | None] = asyncio.Queue()
    run.emit = events.put_nowait

    async def work() -> None:
        try:
            events.put_nowait(RunCompleted(await run.execute(new)))
        except AgnoSQLError as error:
            events.put_nowait(RunFailed(error))
        finally:
            events.put_nowait(None)

    task = asyncio.create_task(work())
    try:
        while (event := await events.get()) is not None:
            yield event
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
