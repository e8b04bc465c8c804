"""Group commit: what several tasks ask for at the same time is done in one go."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from agno_sql.settled import wait_for_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")

_SLOW_S: Final = 1.0
_MOST_TASKS: Final = 2
_REST_S: Final = 5.0


@dataclass(slots=True, eq=False)
class _Waiting(Generic[_Asked, _Answer]):
    asked: _Asked
    answer: asyncio.Future[_Answer]
    batch: asyncio.Future[None] | None = field(default=None)


class Together(Generic[_Asked, _Answer]):
    """Does what the tasks of the event loop that it is made in ask for, in batches.

    Whatever is asked while a batch is under way goes together in the next one, at most *most* at
    once. Nobody waits for a timer: who asks alone is served at once. A batch that takes longer than
    a second, as on a connection that hangs, is not waited for: others go on beside it.

    *work* gets a function to call when it can begin, which returns what has been asked until then
    (the same if it is called again). It answers in that order; an error that it returns is raised
    where it was asked for.
    """

    def __init__(
        self,
        work: Callable[[Callable[[], list[_Asked]]], Awaitable[Sequence[_Answer | BaseException]]],
        *,
        most: int,
    ) -> None:
        self._loop: Final = asyncio.get_running_loop()  # to ask for it again is a system call
        self._work = work
        self._most = most
        self._queue: deque[_Waiting[_Asked, _Answer]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._current: asyncio.Task[None] | None = None
        self._began = 0.0
        self._watch: asyncio.TimerHandle | None = None

    async def ask(self, asked: _Asked) -> _Answer:
        """Return the answer to *asked*.

        Cancelled before its batch has begun, it is not done at all; later, the cancellation is
        raised when the batch has ended, or after five seconds.
        """
        waiting: _Waiting[_Asked, _Answer] = _Waiting(asked, self._loop.create_future())
        self._queue.append(waiting)
        if self._current is None or self._current.done():
            self._start()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting.batch is not None:
                await wait_for_end(waiting.batch)
            raise

    async def rest(self) -> None:
        """Return when no batch is under way, or after five seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_REST_S)

    def _start(self) -> None:
        # Not in the context of whoever comes first: the others are not its business. And not by
        # the loop's task factory: an eager one would begin before it is the current one.
        self._current = asyncio.Task(self._run(), loop=self._loop, context=Context())
        self._tasks.add(self._current)
        self._current.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        own = asyncio.current_task()
        try:
            while self._current is own and any(not one.answer.done() for one in self._queue):
                self._began = self._loop.time()
                if self._watch is None:
                    self._watch = self._loop.call_at(self._began + _SLOW_S, self._look)
                await self._answer_next()
        finally:
            if self._current is own:
                self._current = None
                for waiting in self._queue:  # the event loop is being shut down
                    waiting.answer.cancel()
                self._queue.clear()

    def _look(self) -> None:
        # One timer that is set anew while there are batches: one for each would cost more.
        self._watch = None
        if self._current is None:
            return
        slow_at = self._began + _SLOW_S
        if slow_at <= (now := self._loop.time()):
            slow_at = now + _SLOW_S
            if len(self._tasks) < _MOST_TASKS:
                self._start()
        self._watch = self._loop.call_at(slow_at, self._look)

    async def _answer_next(self) -> None:
        ended: asyncio.Future[None] = self._loop.create_future()
        batch: list[_Waiting[_Asked, _Answer]] | None = None

        def take() -> list[_Asked]:
            nonlocal batch
            if batch is None:
                batch = self._next_batch(ended)
            return [waiting.asked for waiting in batch]

        try:
            answers = await self._answers(take)
            for waiting, answer in zip(batch or (), answers, strict=True):
                if waiting.answer.done():
                    continue
                if isinstance(answer, BaseException):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)
        finally:
            ended.set_result(None)
            for waiting in batch or ():
                waiting.answer.cancel()  # does nothing where there is an answer

    def _next_batch(self, ended: asyncio.Future[None]) -> list[_Waiting[_Asked, _Answer]]:
        batch: list[_Waiting[_Asked, _Answer]] = []
        while self._queue and len(batch) < self._most:
            waiting = self._queue.popleft()
            if not waiting.answer.done():  # else its task was cancelled meanwhile
                waiting.batch = ended
                batch.append(waiting)
        return batch

    async def _answers(self, take: Callable[[], list[_Asked]]) -> Sequence[_Answer | BaseException]:
        try:
            return await self._work(take)
        except Exception as error:  # noqa: BLE001  (whatever it is, who waits has to hear it)
            return [error] * len(take())
