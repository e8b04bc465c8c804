"""What a run costs the database: its transactions and statements."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from agno_sql.memory.sql import SQLMemory
from tests.agent.models import ScriptedModel, agent_of, asks, call
from tests.support.statements import statements

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def seen() -> Iterator[list[str]]:
    """Collect the statements that are executed within, each by how it begins."""
    collected: list[str] = []
    with statements(lambda sql: collected.append(" ".join(sql.split()[:3]))):
        yield collected


def plain_turn(database_url: str, *, named: bool) -> list[str]:
    """Return how the statements of a run begin that calls no tool."""
    if "sqlite" in database_url:
        find = ["SELECT wanted.key FROM"] if named else []
        return [*find, *BEGUN, READ, *COMPLETED]
    find = ["SELECT wanted.place FROM"] if named else []
    return [*find, "WITH given AS", "SELECT wanted.place, m.seq,", "WITH given AS"]


READ = "WITH wanted AS"
BEGUN = [
    "BEGIN IMMEDIATE",
    "SELECT given.key, c.first_seq,",
    "INSERT INTO conversations",
    "INSERT INTO messages",
    "INSERT INTO runs",
    "COMMIT",
]
COMPLETED = [
    "BEGIN IMMEDIATE",
    "SELECT given.key, c.first_seq,",
    "INSERT INTO conversations",
    "INSERT INTO messages",
    "UPDATE runs SET",
    "COMMIT",
]
STEP = [
    "BEGIN IMMEDIATE",
    "SELECT given.key, c.first_seq,",
    "INSERT INTO conversations",
    "INSERT INTO messages",
    "COMMIT",
]


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("named", [False, True])
async def test_a_plain_turn_costs_two_write_transactions_and_one_read(
    database_url: str, named: bool
) -> None:
    """On PostgreSQL each is one statement. A run_id of the caller's is looked up first."""
    async with SQLMemory.open(database_url) as memory:
        agent = agent_of(ScriptedModel(then="ok"), memory)
        await agent.run("warm up", "alice")
        with seen() as executed:
            await agent.run("hello", "alice", run_id="r-1" if named else None)
    assert executed == plain_turn(database_url, named=named)


async def test_results_of_tools_that_end_together_share_a_commit(database_url: str) -> None:
    def look_up(order: int) -> int:
        return order

    wanted = [call("look_up", f"c{n}", order=n) for n in range(3)]
    async with SQLMemory.open(database_url) as memory:
        agent = agent_of(ScriptedModel(asks(*wanted), "done"), memory, tools=[look_up])
        with seen() as executed:
            await agent.run("go", "alice")
    commits = [sql for sql in executed if sql in ("COMMIT", "WITH given AS")]
    # The input, the calls, the results in one to three, the answer.
    assert 4 <= len(commits) <= 6
