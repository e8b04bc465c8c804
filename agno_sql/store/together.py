"""Group commit: what several tasks ask for at the same time is done in one go."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from agno_sql.settled import wait_for_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[_Asked, _Answer]):
    asked: _Asked
    answer: asyncio.Future[_Answer]
    batch: asyncio.Future[None] | None = field(default=None)


class Together(Generic[_Asked, _Answer]):
    """Does what the tasks of one event loop ask for, in batches.

    Whatever is asked while a batch is under way goes together in the next one, at most *most* at
    once. There is no timer: who asks alone waits for nobody.

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
        self._work = work
        self._most = most
        self._queue: deque[_Waiting[_Asked, _Answer]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, asked: _Asked) -> _Answer:
        """Return the answer to *asked*.

        Cancelled before its batch has begun, it is not done at all; later, the cancellation is
        raised when the batch has ended, or after five seconds.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting[_Asked, _Answer](asked, loop.create_future())
        self._queue.append(waiting)
        if self._task is None or self._task.done():
            # Not in the context of whoever comes first: the others are not its business.
            self._task = loop.create_task(self._run(), context=Context())
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting.batch is not None:
                await wait_for_end(waiting.batch)
            raise

    async def _run(self) -> None:
        try:
            while any(not waiting.answer.done() for waiting in self._queue):
                await self._answer_next()
        finally:
            self._task = None  # it knows its event loop, which may be garbage once it has ended
            for waiting in self._queue:  # the event loop is being shut down
                waiting.answer.cancel()
            self._queue.clear()

    async def _answer_next(self) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
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
