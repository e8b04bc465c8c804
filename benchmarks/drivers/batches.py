"""Group commit in its plainest form: what waits while a batch is under way goes next together."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Batches(Generic[_Item, _Answer]):
    """Gives items to *work* in batches, one batch at a time, and each its own answer."""

    def __init__(self, work: Callable[[Sequence[_Item]], Awaitable[Sequence[_Answer]]]) -> None:
        self._work = work
        self._waiting: list[tuple[_Item, asyncio.Future[_Answer]]] = []
        self._is_woken = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until the block ends."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def submit(self, item: _Item) -> _Answer:
        """Return the answer to *item*, after its batch is done."""
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._is_woken.set()
        return await future

    async def _run(self) -> None:
        while True:
            await self._is_woken.wait()
            self._is_woken.clear()
            batch, self._waiting = self._waiting, []
            try:
                answers = await self._work([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001  (whoever waits for it is told)
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), given in zip(batch, answers, strict=True):
                future.set_result(given)
