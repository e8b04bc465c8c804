"""The runs at work for the server's clients. They belong to the server: a client may go away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from agno_sql.agent.events import RunCompleted, RunFailed
from agno_sql.errors import AgnoSQLError, RunCancelledError, RunIdReusedError
from agno_sql.server.refusals import OverloadedError, StoppingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agno_sql.agent.agent import Agent
    from agno_sql.agent.events import RunEvent
    from agno_sql.agent.output import RunOutput
    from agno_sql.runs import RunKey


class OngoingRun:
    """A run at work, and all that has happened in it so far."""

    def __init__(self, key: RunKey, message: str) -> None:
        self.key: Final = key
        self.message: Final = message
        self._events: list[RunEvent] = []
        self._ending: RunCompleted | Exception | None = None
        self._news = asyncio.Event()

    @property
    def has_ended(self) -> bool:
        """Whether there is an answer or an error."""
        return self._ending is not None

    def tell(self, event: RunEvent) -> None:
        """Add *event*, which is not the last one."""
        self._events.append(event)
        self._wake()

    def end(self, ending: RunCompleted | Exception) -> None:
        """End with the answer or an error."""
        self._ending = ending
        self._wake()

    async def answer(self) -> RunOutput:
        """Return the answer when it is there, or raise what the run ended with."""
        while self._ending is None:
            await self._news.wait()
        if isinstance(self._ending, Exception):
            raise self._ending
        return self._ending.output

    async def follow(self, *, pause_s: float) -> AsyncIterator[RunEvent | None]:
        """Yield all events from the first on, as they come; ``None`` after each pause.

        What ``answer`` would raise is raised after the last event; the answer is the last event.
        """
        seen = 0
        while True:
            news = self._news
            for event in self._events[seen:]:
                yield event
                seen += 1
            if self._ending is not None and seen == len(self._events):
                break
            try:
                await asyncio.wait_for(news.wait(), pause_s)
            except TimeoutError:
                yield None
        if isinstance(self._ending, Exception):
            raise self._ending
        yield self._ending

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class OngoingRuns:
    """The runs of one agent that this process works on for its clients."""

    def __init__(self, agent: Agent, *, at_most: int) -> None:
        self._agent = agent
        self._at_most = at_most
        self._runs: dict[RunKey, OngoingRun] = {}
        self._tasks: dict[RunKey, asyncio.Task[None]] = {}
        self._is_stopping = False

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The tasks of the runs at work."""
        return set(self._tasks.values())

    @property
    def is_stopping(self) -> bool:
        """Whether no run begins any more."""
        return self._is_stopping

    def stop(self) -> None:
        """Begin no run any more; those at work go on."""
        self._is_stopping = True

    def begin(self, key: RunKey, message: str, *, streams: bool) -> OngoingRun:
        """Return the run of *key*, which begins now unless it is at work already.

        With *streams* a run that begins tells its text as it comes.

        Raises:
            RunIdReusedError: It is at work with another message.
            StoppingError, OverloadedError: No run can begin now.
        """
        if (run := self._runs.get(key)) is not None:
            if run.message != message:
                raise RunIdReusedError(f"run_id {key.run_id} is that of another message")
            return run
        if self._is_stopping:
            raise StoppingError("the server stops; try again later")
        if len(self._runs) >= self._at_most:
            raise OverloadedError("too many runs are at work; try again later")
        run = self._runs[key] = OngoingRun(key, message)
        task = self._tasks[key] = asyncio.create_task(self._work(run, streams=streams))
        # Not at the end of the task: one that is cancelled before it begins has no end.
        task.add_done_callback(lambda _: self._forget(run))
        return run

    def cancel(self, key: RunKey) -> bool:
        """Cancel the run of *key* if this process works on it; return whether it does."""
        task = self._tasks.get(key)
        return task is not None and task.cancel()

    async def _work(self, run: OngoingRun, *, streams: bool) -> None:
        try:
            run.end(RunCompleted(await self._answer(run, streams=streams)))
        except Exception as error:  # noqa: BLE001  (whoever follows the run gets it)
            run.end(error)

    def _forget(self, run: OngoingRun) -> None:
        if not run.has_ended:
            run.end(RunCancelledError(f"run {run.key.run_id} was cancelled"))
        del self._runs[run.key], self._tasks[run.key]

    async def _answer(self, run: OngoingRun, *, streams: bool) -> RunOutput:
        user_id, session_id, run_id = run.key
        if not streams:
            return await self._agent.run(run.message, user_id, session_id=session_id, run_id=run_id)
        async for event in self._agent.stream(
            run.message, user_id, session_id=session_id, run_id=run_id
        ):
            match event:
                case RunCompleted(output):
                    return output
                case RunFailed(error):
                    raise error
                case _:
                    run.tell(event)
        raise AgnoSQLError("the stream ended without an ending")
