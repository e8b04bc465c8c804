"""Several processes on one database: nothing is lost, doubled or out of order."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from itertools import islice

import pytest

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.support.writer import Acknowledged, Writer, writer

PROCESSES = 4
USERS = [f"user-{n}" for n in range(10)]


@pytest.fixture(
    params=[
        pytest.param("sqlite_url", id="sqlite"),
        pytest.param("empty_postgres_url", id="postgres18"),
    ]
)
def empty_database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


def run_together(writers: list[Writer]) -> list[Acknowledged]:
    """Let all start at one moment and finish; return what they acknowledged."""
    for each in writers:
        each.wait_until_ready()
    for each in writers:
        each.go()
    acknowledged = [report for each in writers for report in each.acknowledged()]
    assert [each.process.wait() for each in writers] == [0] * len(writers)
    return acknowledged


async def stored_in(url: str, users: list[str]) -> list[Acknowledged]:
    """Return what a new memory reads, in order, without a gap and from 1 for each user."""
    found = []
    async with SQLMemory.open(url, capacity=None, migrate=False) as memory:
        for user in users:
            stored = await memory.get_messages(user)
            assert [m.seq for m in stored] == list(range(1, len(stored) + 1))
            assert await memory.size(user) == len(stored)
            found += [Acknowledged(user, m.seq or 0, m.content) for m in stored]
    return found


@pytest.mark.guarantee("G2")
async def test_processes_that_write_at_once_number_each_message_once_without_gaps(
    database_url: str,
) -> None:
    """4 processes, 10 users, 25 messages each: every user has exactly 1..100."""
    async with SQLMemory.open(database_url):
        pass
    with ExitStack() as stack:
        acknowledged = run_together(
            [
                stack.enter_context(
                    writer(database_url, name=f"p{n}", users=len(USERS), messages=25)
                )
                for n in range(PROCESSES)
            ]
        )
    stored = await stored_in(database_url, USERS)
    assert len(stored) == 1000
    assert set(stored) == set(acknowledged)
    for user in USERS:
        mine = [message for message in stored if message.user == user]
        assert len(mine) == 100
        for process in range(PROCESSES):
            own = [m.content for m in mine if m.content.startswith(f"p{process}.")]
            assert own == [f"p{process}.{n}" for n in range(25)]


@pytest.mark.guarantee("G18")
async def test_processes_that_open_an_empty_database_at_once_all_succeed(
    empty_database_url: str,
) -> None:
    migrate = "None" if empty_database_url.startswith("sqlite") else "True"
    with ExitStack() as stack:
        run_together(
            [
                stack.enter_context(
                    writer(
                        empty_database_url,
                        name=f"p{n}",
                        users=1,
                        messages=1,
                        start="unopened",
                        migrate=migrate,
                    )
                )
                for n in range(PROCESSES)
            ]
        )
    stored = await stored_in(empty_database_url, ["user-0"])
    assert sorted(m.content for m in stored) == ["p0.0", "p1.0", "p2.0", "p3.0"]


@pytest.mark.guarantee("G5")
async def test_another_process_reads_what_an_ended_one_wrote(database_url: str) -> None:
    with writer(database_url, name="p", users=2, messages=3) as first:
        acknowledged = run_together([first])
    stored = await stored_in(database_url, ["user-0", "user-1"])
    assert [(m.user, m.content) for m in stored] == [
        (user, f"p.{n}") for user in ("user-0", "user-1") for n in range(3)
    ]
    assert set(stored) == set(acknowledged)


@pytest.mark.guarantee("G4")
async def test_what_a_killed_process_acknowledged_is_there_and_writing_goes_on(
    database_url: str,
) -> None:
    """The process is killed with SIGKILL in the middle of its load."""
    with writer(database_url, name="p", users=len(USERS), messages=100_000) as doomed:
        doomed.wait_until_ready()
        doomed.go()
        reports = doomed.acknowledged()
        acknowledged = set(islice(reports, 200))
        doomed.process.kill()
        acknowledged |= set(reports)
        assert doomed.process.wait() == -signal.SIGKILL
    stored = await stored_in(database_url, USERS)
    assert len(acknowledged) >= 200
    assert acknowledged <= set(stored)
    for user in USERS:
        mine = [m.content for m in stored if m.user == user]
        assert mine == [f"p.{n}" for n in range(len(mine))]
    async with SQLMemory.open(database_url, capacity=None) as memory:
        await memory.add(Message.user("next"), "user-0")
    again = await stored_in(database_url, USERS)
    assert set(stored) <= set(again)
    assert [m.content for m in again if m.user == "user-0"][-1] == "next"
