"""What the operator's pages ask finds its rows by an index, however much others have stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from agno_sql.memory.sql import SQLMemory
from tests.store.plans import executed, fill, nodes_of, postgresql_plans, sqlite_plan
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from agno_sql.memory.operator import Operator

HEAVY: Final = "heavy"
INNER: Final = frozenset({"CORRELATED SCALAR SUBQUERY", "SCALAR SUBQUERY"})


async def ask_what_pages_ask(operator: Operator) -> None:
    """Ask for the first and for another page of each list, and for both kinds of dry runs."""
    users = await operator.users(limit=10)
    await operator.users(limit=10, after=users[-1])
    found = await operator.users_by_prefix("light-1", limit=10)
    await operator.users_by_prefix("light-1", limit=10, after=found[-1].user_id)
    await operator.kept("light-77")
    await operator.kept("light-77", session_id="default")
    runs = await operator.runs(HEAVY, session_id="default", limit=10)
    last = runs[-1]
    await operator.runs(
        HEAVY, session_id="default", limit=10, after=(last.last_seq, last.record.run_id)
    )


@pytest.mark.guarantee("G91")
async def test_a_page_finds_its_rows_by_an_index(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLMemory.open(database_url, clock=FakeClock()) as memory:
        fill(database_url)
        with executed(monkeypatch) as seen:
            await ask_what_pages_ask(memory.operator)
    assert len(seen) == 8
    for statement in seen:
        if "sqlite" in database_url:
            by_index_on_sqlite(sqlite_plan(database_url, statement))
            continue
        for plan in await postgresql_plans(database_url, statement):
            by_index_on_postgresql(plan)


def by_index_on_sqlite(plan: list[str]) -> None:
    assert any(" USING " in line for line in plan)
    for line in plan:
        if line.rstrip("0123456789 ") not in INNER:
            # Sorted by the index: of runs with the same last_seq, of which there is one, by run_id.
            assert " USING " in line or line == "USE TEMP B-TREE FOR RIGHT PART OF ORDER BY", plan
            assert not line.startswith("SCAN") or line.startswith("SCAN c USING INDEX ix_"), plan


def by_index_on_postgresql(plan: dict[str, Any]) -> None:
    for node in nodes_of(plan):
        assert "Seq Scan" not in node["Node Type"], plan
        assert node["Node Type"] != "Sort", plan
        # Only the list of all users walks an index from its end, and it stops at its limit.
        if "Index Name" in node and "Index Cond" not in node:
            assert node["Index Name"] == "ix_conversations_last_active_at_user_id", plan
