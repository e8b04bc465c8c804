"""What a run costs the database: transactions, statements, connections."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event

from agno_sql.memory.sql import SQLMemory
from tests.agent.models import ScriptedModel, agent_of, asks, call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

WRITES = ("INSERT", "UPDATE", "DELETE")


@contextmanager
def transactions() -> Iterator[list[list[str]]]:
    """Collect the statements of each transaction that ends within."""
    ended: list[list[str]] = []
    open_ones: dict[int, list[str]] = {}

    def see(connection: Connection, _cursor: object, sql: str, *_: object) -> None:
        if sql.startswith(("SELECT", *WRITES)):
            driver = id(connection.connection.dbapi_connection)
            open_ones.setdefault(driver, []).append(sql)

    def end(dbapi_connection: object, _record: object) -> None:
        if statements := open_ones.pop(id(dbapi_connection), None):
            ended.append(statements)

    event.listen(Engine, "before_cursor_execute", see)
    event.listen(Engine, "checkin", end)
    try:
        yield ended
    finally:
        event.remove(Engine, "before_cursor_execute", see)
        event.remove(Engine, "checkin", end)


def is_write(statements: list[str]) -> bool:
    return any(statement.startswith(WRITES) for statement in statements)


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("named", [False, True])
async def test_a_plain_turn_costs_two_write_transactions_and_one_read(
    database_url: str, named: bool
) -> None:
    """A run_id of the caller's is looked up first, which is one read more."""
    async with SQLMemory.open(database_url) as memory:
        agent = agent_of(ScriptedModel(then="ok"), memory)
        await agent.run("warm up", "alice")
        with transactions() as seen:
            await agent.run("hello", "alice", run_id="r-1" if named else None)
    assert [is_write(statements) for statements in seen] == [False] * named + [True, False, True]
    assert [len(statements) for statements in seen] == [1] * named + [3, 1, 3]


async def test_each_step_of_a_round_costs_one_write_transaction_of_two_statements(
    database_url: str,
) -> None:
    def look_up(order: int) -> int:
        return order

    wanted = [call("look_up", f"c{n}", order=n) for n in range(3)]
    async with SQLMemory.open(database_url) as memory:
        agent = agent_of(ScriptedModel(asks(*wanted), "done"), memory, tools=[look_up])
        with transactions() as seen:
            await agent.run("go", "alice")
    writes = [statements for statements in seen if is_write(statements)]
    assert [len(statements) for statements in writes] == [3, 2, 2, 2, 2, 3]
