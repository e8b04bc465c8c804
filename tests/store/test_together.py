"""The queue behind group commit: what is asked for while a batch is under way goes in the next."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import pytest

from agno_sql.store.together import Together
from tests.agent.models import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


SOON_S: Final = 0.02


class Work:
    """Doubles what it is asked for, when the test lets it; keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = asyncio.Event()
        self.lets_go = asyncio.Semaphore(0)
        self.seen: list[Any] = []

    async def __call__(self, take: Callable[[], list[int]]) -> Sequence[int | BaseException]:
        batch = take()
        assert take() == batch, "it is the same if it is asked for again"
        self.batches.append(batch)
        self.seen.append(speaker.get(None))
        self.began.set()
        await self.lets_go.acquire()
        self.began.clear()
        return [ValueError(f"no {asked}") if asked < 0 else 2 * asked for asked in batch]

    def let_go(self, batches: int = 100) -> None:
        for _ in range(batches):
            self.lets_go.release()


speaker: ContextVar[str] = ContextVar("speaker")


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture(autouse=True)
async def no_task_is_left() -> Any:
    yield
    await turns(3)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def turns(count: int) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def asking(together: Together[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(together.ask(number)) for number in numbers]


async def answers(tasks: list[asyncio.Task[int]]) -> list[int | BaseException]:
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.guarantee("G52")
async def test_who_asks_alone_waits_for_no_timer(work: Work) -> None:
    (task,) = asking(Together(work, most=10), 1)
    await turns(3)
    assert work.batches == [[1]]
    work.let_go()
    assert await task == 2


async def test_what_is_asked_while_a_batch_is_under_way_goes_together_in_the_next_in_order(
    work: Work,
) -> None:
    together = Together(work, most=10)
    tasks = asking(together, 0)
    await work.began.wait()
    tasks += asking(together, *range(1, 25))
    work.let_go()
    assert await answers(tasks) == [2 * n for n in range(25)]
    assert work.batches == [[0], list(range(1, 11)), list(range(11, 21)), list(range(21, 25))]


async def test_an_error_is_raised_only_where_it_was_asked_for(work: Work) -> None:
    tasks = asking(Together(work, most=10), 1, -2, 3)
    work.let_go()
    one, refused, three = await answers(tasks)
    assert (one, three) == (2, 6)
    assert isinstance(refused, ValueError)
    assert str(refused) == "no -2"


async def test_an_error_of_the_work_reaches_all_of_its_batch_and_the_next_one_goes_on() -> None:
    batches: list[list[int]] = []

    async def fail_once(take: Callable[[], list[int]]) -> list[int]:
        await asyncio.sleep(0)
        batches.append(take())
        if len(batches) == 1:
            raise LookupError("lost")
        return batches[-1]

    together: Together[int, int] = Together(fail_once, most=2)
    lost, also_lost, third = await answers(asking(together, 1, 2, 3))
    assert isinstance(lost, LookupError)
    assert isinstance(also_lost, LookupError)
    assert third == 3


async def test_work_that_fails_before_it_could_begin_tells_those_who_wait() -> None:
    async def fail(take: Callable[[], list[int]]) -> list[int]:
        raise LookupError("no connection")

    (lost,) = await answers(asking(Together(fail, most=2), 1))
    assert isinstance(lost, LookupError)


class TestCancelled:
    async def test_before_its_batch_has_begun_it_is_not_done(self, work: Work) -> None:
        together = Together(work, most=10)
        tasks = asking(together, 0)
        await work.began.wait()
        tasks += asking(together, 1, 2, 3)
        await turns(2)
        tasks[2].cancel()
        work.let_go()
        first, one, cancelled, three = await answers(tasks)
        assert (first, one, three) == (0, 2, 6)
        assert isinstance(cancelled, asyncio.CancelledError)
        assert work.batches == [[0], [1, 3]]

    async def test_when_all_are_no_batch_is_made_of_them(self, work: Work) -> None:
        together = Together(work, most=10)
        tasks = asking(together, 0)
        await work.began.wait()
        tasks += asking(together, 1, 2)
        await turns(2)
        for task in tasks[1:]:
            task.cancel()
        work.let_go()
        await answers(tasks)
        assert work.batches == [[0]]

    async def test_later_it_ends_with_its_batch_whose_others_get_their_answers(
        self, work: Work
    ) -> None:
        tasks = asking(Together(work, most=10), 1, 2)
        await work.began.wait()
        for _ in range(3):  # whoever insists is not let go earlier
            tasks[0].cancel()
            await turns(3)
        assert not tasks[0].done()
        work.let_go()
        cancelled, two = await answers(tasks)
        assert isinstance(cancelled, asyncio.CancelledError)
        assert two == 4


async def a_while() -> None:
    """Return when a timer has rung that stands behind that of the newest batch."""
    waited = asyncio.Event()
    asyncio.get_running_loop().call_later(SOON_S, waited.set)
    await waited.wait()
    await turns(3)


class TestABatchThatHangs:
    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("agno_sql.store.together._SLOW_S", SOON_S)

    async def test_is_not_waited_for_by_those_who_come_later(self, work: Work) -> None:
        together = Together(self.hanging_first(work), most=10)
        tasks = asking(together, 1)
        await work.began.wait()
        tasks += asking(together, 2)
        assert await answers(tasks[1:]) == [4]
        assert not tasks[0].done()
        work.let_go()
        assert await answers(tasks) == [2, 4]

    async def test_and_some_more_do_not_become_any_number_of_tasks(self, work: Work) -> None:
        together = Together(work, most=1)
        tasks: list[asyncio.Task[int]] = []
        for number in range(2):
            tasks += asking(together, number)
            await asyncio.wait_for(work.began.wait(), DEADLINE_S)
            work.began.clear()
        tasks += asking(together, 2)
        await a_while()
        assert work.batches == [[0], [1]]
        work.let_go()
        assert await answers(tasks) == [0, 2, 4]

    async def test_and_whoever_waits_goes_on_when_any_of_them_has_ended(self) -> None:
        ends = [asyncio.Event() for _ in range(2)]
        begun = asyncio.Event()

        async def hang(take: Callable[[], list[int]]) -> list[int]:
            (number,) = take()
            begun.set()
            if number < len(ends):
                await ends[number].wait()
            return [number]

        together = Together(hang, most=1)
        tasks: list[asyncio.Task[int]] = []
        for number in range(len(ends)):
            tasks += asking(together, number)
            await asyncio.wait_for(begun.wait(), DEADLINE_S)
            begun.clear()
        last = asking(together, 2)
        await a_while()
        ends[0].set()  # the oldest: the newest still hangs
        assert await answers([tasks[0], *last]) == [0, 2]
        for end in ends:
            end.set()
        assert await answers(tasks) == [0, 1]

    def hanging_first(self, work: Work) -> Any:
        async def do(take: Callable[[], list[int]]) -> Sequence[int | BaseException]:
            if work.batches:
                return [2 * asked for asked in take()]
            return await work(take)

        return do


async def test_work_sees_the_context_of_nobody_who_asks(work: Work) -> None:
    speaker.set("alice")
    work.let_go()
    assert await answers(asking(Together(work, most=10), 1)) == [2]
    assert work.seen == [None]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are eager since Python 3.12")
async def test_where_tasks_are_eager_everybody_is_answered(work: Work) -> None:
    loop = asyncio.get_running_loop()
    together = Together(work, most=10)
    work.let_go()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009  (not in 3.11)
    try:
        assert await answers(asking(together, 1, 2)) == [2, 4]
    finally:
        loop.set_task_factory(None)


def test_an_event_loop_that_ends_leaves_nobody_waiting() -> None:
    ended: list[str] = []

    async def hang(take: Callable[[], list[int]]) -> list[int]:
        take()
        await asyncio.Event().wait()
        return []

    async def ask(together: Together[int, int], number: int) -> None:
        try:
            await together.ask(number)
        except asyncio.CancelledError:
            ended.append(f"{number} was cancelled")
            raise

    async def main() -> None:
        together: Together[int, int] = Together(hang, most=1)
        asked.extend(asyncio.create_task(ask(together, number)) for number in range(2))
        await turns(3)

    asked: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert sorted(ended) == ["0 was cancelled", "1 was cancelled"]
