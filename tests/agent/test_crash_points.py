"""kill -9 before and after each commit of a run: nothing stored is lost, nothing is done twice.

On databases that are as durable as a host's: SQLite with synchronous=FULL, PostgreSQL with fsync.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import pytest
from sqlalchemy import text

from agno_sql.agent.tool_calls import INTERRUPTED_RESULT
from agno_sql.memory.sql import SQLMemory
from agno_sql.store.engine import open_engine
from agno_sql.testing.wire_rules import violation
from tests.agent.durable import (
    ANSWER,
    ANSWERING,
    ASKING,
    CHARGED,
    LOOKED_UP,
    QUESTION,
    Journal,
    Moment,
    Shop,
    Step,
    ToolName,
    shop_agent,
)
from tests.agent.models import DEADLINE_S, as_wire, contents, roles
from tests.support.clock import FakeClock
from tests.support.crasher import killed_at, recovered_by, recoverer
from tests.support.postgres import Databases, PrivatePostgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agno_sql.message import Message

WHOLE = ["user", "assistant", "tool", "tool", "assistant"]


class Crash(NamedTuple):
    """Where the process dies, what it has stored then, and what is done, before and afterwards.

    ``model``, ``look_up`` and ``charge`` are the calls of both processes; look_up is idempotent.
    """

    step: Step
    moment: Moment
    first: ToolName
    stored: int
    model: int
    look_up: int
    charge: int
    is_charge_known: bool

    def __str__(self) -> str:
        return f"{self.step}-{self.moment}-{self.first} first".replace(" ", "_")


# An uncommitted step is as if it had not been taken: the model is asked again, an idempotent tool
# called again. A call that may have been made, and may not be made again, is never made again.
CRASHES = [
    Crash("begin", "committed", "look_up", 1, 2, 1, 1, True),
    Crash("calls", "uncommitted", "look_up", 1, 3, 1, 1, True),
    Crash("calls", "committed", "look_up", 2, 2, 1, 0, False),
    Crash("first result", "uncommitted", "look_up", 2, 2, 2, 1, False),
    Crash("first result", "uncommitted", "charge", 2, 2, 2, 1, False),
    Crash("first result", "committed", "look_up", 3, 2, 1, 1, False),
    Crash("first result", "committed", "charge", 3, 2, 2, 1, True),
    Crash("second result", "uncommitted", "look_up", 3, 2, 1, 1, False),
    Crash("second result", "uncommitted", "charge", 3, 2, 2, 1, True),
    Crash("second result", "committed", "look_up", 4, 2, 1, 1, True),
    Crash("second result", "committed", "charge", 4, 2, 1, 1, True),
    Crash("answer", "uncommitted", "look_up", 4, 3, 1, 1, True),
]


@pytest.fixture(scope="module")
def durable_postgres() -> Iterator[Databases]:
    server = PrivatePostgres(18, durable=True)
    try:
        server.start()
        maker = Databases(server.url)
        yield maker
        maker.close()
    finally:
        server.destroy()


@pytest.fixture
def durable_postgres_url(durable_postgres: Databases) -> Iterator[str]:
    with durable_postgres.fresh() as url:
        yield url


@pytest.fixture(
    params=[
        pytest.param("sqlite_url", id="sqlite"),
        pytest.param("durable_postgres_url", id="postgres18"),
    ]
)
async def durable_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    async with SQLMemory.open(url):  # an SQLite file gets its tables
        return url


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def later() -> FakeClock:
    """Return a clock by which every lease has expired."""
    return FakeClock(datetime.now(UTC) + timedelta(hours=1))


def results(stored: list[Message]) -> dict[str | None, str]:
    """Return the result of each tool."""
    return {message.name: message.content for message in stored if message.role == "tool"}


async def test_these_databases_write_each_commit_to_disk(durable_url: str) -> None:
    engine = open_engine(durable_url)
    async with engine.connect() as conn:
        if engine.dialect.name == "sqlite":
            settings = {"PRAGMA synchronous": 2, "PRAGMA journal_mode": "wal"}
        else:
            settings = {"SHOW fsync": "on", "SHOW synchronous_commit": "on"}
        for question, answer in settings.items():
            assert await conn.scalar(text(question)) == answer
    await engine.dispose()


@pytest.mark.guarantee("G34")
@pytest.mark.parametrize("crash", CRASHES, ids=str)
async def test_a_run_that_was_killed_anywhere_is_completed_without_doing_anything_twice(
    durable_url: str, journal: Journal, crash: Crash
) -> None:
    killed_at(durable_url, journal, crash.step, crash.moment, first=crash.first)

    async with SQLMemory.open(durable_url, clock=later()) as memory:
        agent = shop_agent(memory, journal)
        left = await memory.get_messages("alice")
        dead = await memory.get_run("r-1", "alice")
        assert (dead and dead.status, dead and dead.attempt) == ("running", 1)
        assert len(left) == crash.stored

        (output,) = await agent.recover()

        stored = await memory.get_messages("alice")
        assert stored[: len(left)] == left
        assert (output.content, output.messages) == (ANSWER, tuple(sorted(stored, key=step_of)))
        assert sorted(roles(stored)) == sorted(WHOLE)
        assert [message.seq for message in stored] == [1, 2, 3, 4, 5]
        assert violation(as_wire(stored)) is None
        assert results(stored) == {
            "look_up": LOOKED_UP,
            "charge": CHARGED if crash.is_charge_known else INTERRUPTED_RESULT,
        }
        assert journal.counts() == (crash.model, crash.look_up, crash.charge)
        # The service that look_up asks can tell that it is the same call.
        assert len(set(journal.of("look_up"))) == 1
        record = await memory.get_run("r-1", "alice")
        assert record is not None
        assert (record.status, record.attempt) == ("completed", 2)
        assert record.usage == ASKING + ANSWERING

        again = await agent.run(QUESTION, "alice", run_id="r-1")
        assert (again.content, again.messages) == (output.content, output.messages)
        assert await agent.recover() == []
        assert await memory.get_messages("alice") == stored
    assert journal.counts() == (crash.model, crash.look_up, crash.charge)


@pytest.mark.guarantee("G34")
async def test_a_run_that_was_killed_before_its_first_commit_is_not_known_and_can_be_run(
    durable_url: str, journal: Journal
) -> None:
    killed_at(durable_url, journal, "begin", "uncommitted")

    async with SQLMemory.open(durable_url, clock=later()) as memory:
        agent = shop_agent(memory, journal)
        assert await agent.recover() == []
        assert await memory.get_run("r-1", "alice") is None
        assert await memory.get_messages("alice") == []
        assert await memory.last_activity("alice") is None

        output = await agent.run(QUESTION, "alice", run_id="r-1")
        record = await memory.get_run("r-1", "alice")

    assert (output.content, record and record.attempt) == (ANSWER, 1)
    assert journal.counts() == (2, 1, 1)


@pytest.mark.guarantee("G34")
async def test_a_run_that_was_killed_after_its_last_commit_is_not_answered_twice(
    durable_url: str, journal: Journal
) -> None:
    killed_at(durable_url, journal, "answer", "committed")

    async with SQLMemory.open(durable_url, clock=later()) as memory:
        agent = shop_agent(memory, journal)
        assert await agent.recover() == []
        output = await agent.run(QUESTION, "alice", run_id="r-1")
        record = await memory.get_run("r-1", "alice")
        stored = await memory.get_messages("alice")

    assert (output.content, output.messages) == (ANSWER, tuple(stored))
    assert roles(stored) == WHOLE
    assert record is not None
    assert (record.status, record.attempt, record.usage) == ("completed", 1, ASKING + ANSWERING)
    assert journal.counts() == (2, 1, 1)


@pytest.mark.guarantee("G34")
async def test_a_new_process_completes_a_killed_run_when_its_lease_has_expired(
    durable_url: str, journal: Journal
) -> None:
    """With the clock of the machine, as a host's processes have it."""
    killed_at(durable_url, journal, "first result", "uncommitted", lease_s=0.3)
    async with SQLMemory.open(durable_url) as memory, asyncio.timeout(DEADLINE_S):
        while not await memory.run_log.is_free("alice", "default"):  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.02)

    with recoverer(durable_url, journal) as process:
        assert recovered_by([process]) == [[f"alice {ANSWER}"]]

    async with SQLMemory.open(durable_url) as memory:
        stored = await memory.get_messages("alice")
        record = await memory.get_run("r-1", "alice")
    assert record is not None
    assert (record.status, record.attempt) == ("completed", 2)
    assert violation(as_wire(stored)) is None
    assert contents(stored, "assistant") == ["", ANSWER]
    assert results(stored) == {"look_up": LOOKED_UP, "charge": INTERRUPTED_RESULT}
    assert journal.counts() == (2, 2, 1)
    assert len(set(journal.of("look_up"))) == 1


@pytest.mark.guarantee("G35")
async def test_processes_that_recover_at_once_recover_each_run_once(
    durable_url: str, journal: Journal
) -> None:
    """4 processes, 20 interrupted runs."""
    users = [f"user-{n:02}" for n in range(20)]
    long_ago = FakeClock(datetime.now(UTC) - timedelta(hours=1))
    async with Shop.open(durable_url, long_ago, journal.path.parent) as shop:
        await asyncio.gather(*(shop.interrupt("calls", user_id=user) for user in users))
    with ExitStack() as stack:
        processes = [stack.enter_context(recoverer(durable_url, journal)) for _ in range(4)]
        reports = recovered_by(processes)

    assert sorted(line for report in reports for line in report) == [
        f"{user} {ANSWER}" for user in users
    ]
    # The model asked for tools before the crash, and was asked once more: for the answer.
    assert journal.of("model") == ["user"] * 20 + ["tool"] * 20
    assert len(journal.of("look_up")) == len(set(journal.of("look_up"))) == 20
    assert journal.of("charge") == []
    async with SQLMemory.open(durable_url) as memory:
        for user in users:
            record = await memory.get_run("r-1", user)
            assert (record and record.status, record and record.attempt) == ("completed", 2)
            assert roles(await memory.get_messages(user)) == WHOLE


def step_of(message: Message) -> int:
    """Return the place of *message* in its run; results are stored as they come."""
    assert message.run_step is not None
    return message.run_step
