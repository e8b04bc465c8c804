"""The hot statements find what they need by the keys, however unequal the users are."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from agno_sql.runs import RunKey
from tests.store.plans import Executed, executed, fill, nodes_of, postgresql_plans, sqlite_plan
from tests.store.test_group_commit import lease_of, new_run
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Beyond this PostgreSQL compiles a plan, which takes longer than any of these statements.
JIT_ABOVE: Final = 100_000
OF_SYSTEM: Final = "ix_messages_system"


class Plans:
    """A memory on filled tables, and what it executes."""

    def __init__(self, url: str, memory: SQLMemory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url, self.memory, self.monkeypatch = url, memory, monkeypatch

    async def turn(self, user: str) -> list[Executed]:
        """Return the statements of what an agent's run and its callers do all the time."""
        lease = lease_of("r", user)
        answer = Message(role="assistant", content="hi", run_id="r", run_step=1)
        with executed(self.monkeypatch) as seen:
            await self.memory.add(Message.user("hi"), user)
            await self.memory.run_log.begin(lease, new_run("r"), limit=20)
            await self.memory.run_log.append(lease, answer)
            await self.memory.run_log.complete(lease, answer, usage=Usage(1, 1))
            await self.memory.get_messages(user, limit=20)
            await self.memory.get_messages(user, limit=20, before=8)
        return [statement for statement in seen if " messages " in f" {statement.sql} "]

    async def of_operators(self) -> list[Executed]:
        with executed(self.monkeypatch) as seen:
            await self.memory.inactive_users(timedelta(days=1), limit=10)
            await self.memory.run_log.interrupted("shop", limit=10, after=None)
        assert len(seen) == 2
        return seen

    async def require_keys(self, statement: Executed) -> None:
        """Require that no message is looked for but by its user, session and seq."""
        if "sqlite" in self.url:
            by_keys_on_sqlite(sqlite_plan(self.url, statement))
            return
        for plan in await postgresql_plans(self.url, statement):
            by_keys_on_postgresql(plan)


def by_keys_on_sqlite(plan: list[str]) -> None:
    for line in plan:
        if not line.startswith(("SEARCH m ", "SEARCH messages ", "SCAN m", "SCAN messages")):
            continue
        assert line.startswith("SEARCH"), plan
        assert "(user_id=? AND session_id=?" in line, plan
        is_sorted = any(other.startswith("USE TEMP B-TREE") for other in plan)
        assert "seq" in line.partition("(")[2] or OF_SYSTEM in line or not is_sorted, plan


def by_keys_on_postgresql(plan: dict[str, Any]) -> None:
    assert plan["Total Cost"] < JIT_ABOVE, plan
    for node in nodes_of(plan):
        for inner in node.get("Plans", ()):
            if inner.get("Index Name") in ("pk_messages", OF_SYSTEM):
                # The newest are where the index ends: no other bound is needed for a few of them.
                bounds = ("user_id", "session_id", *(["seq"] * (node["Node Type"] != "Limit")))
                assert all(column in inner["Index Cond"] for column in bounds), plan
            elif inner.get("Relation Name") == "messages":
                assert inner["Node Type"] in ("ModifyTable", "Bitmap Heap Scan"), plan


@pytest.fixture
async def plans(
    database_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Plans]:
    capacity = request.node.callspec.params.get("capacity", None)
    async with SQLMemory.open(database_url, capacity=capacity, clock=FakeClock()) as memory:
        fill(database_url)
        yield Plans(database_url, memory, monkeypatch)


@pytest.mark.guarantee("G59")
@pytest.mark.parametrize(
    "capacity, users",
    [(10, ["light-77"]), (49_990, ["heavy"]), (None, ["heavy", "light-77"])],
    ids=["pruned", "much pruned", "unlimited"],
)
async def test_a_turn_finds_its_messages_by_their_keys(
    way: str, plans: Plans, capacity: int | None, users: list[str]
) -> None:
    for user in users:
        hot = await plans.turn(user)
        assert len(hot) >= 6
        for statement in hot:
            await plans.require_keys(statement)


async def test_the_titles_of_sessions_are_found_by_the_keys(plans: Plans) -> None:
    with executed(plans.monkeypatch) as seen:
        await plans.memory.sessions("heavy", limit=20)
    (statement,) = seen
    if "sqlite" in plans.url:
        (line,) = [line for line in sqlite_plan(plans.url, statement) if " messages " in line]
        assert line.startswith("SEARCH")
        assert "(user_id=? AND session_id=?)" in line
        return
    for plan in await postgresql_plans(plans.url, statement):
        by_keys_on_postgresql(plan)


@pytest.mark.guarantee("G59")
async def test_runs_are_found_by_their_keys(plans: Plans) -> None:
    keys = [RunKey(user, "default", "run-4") for user in ("heavy", "light-77", "nobody")]
    with executed(plans.monkeypatch) as seen:
        found = await asyncio.gather(*map(plans.memory.run_log.find, keys))
    assert [run is not None for run in found] == [True, True, False]
    shared = seen[0]
    assert "wanted" in shared.sql
    if "sqlite" in plans.url:
        (line,) = (line for line in sqlite_plan(plans.url, shared) if "wanted" not in line)
        assert "(user_id=? AND session_id=? AND run_id=?)" in line
        return
    for plan in await postgresql_plans(plans.url, shared):
        (of_runs,) = (node for node in nodes_of(plan) if node.get("Relation Name") == "runs")
        assert of_runs["Index Name"] == "pk_runs"
        assert "run_id" in of_runs["Index Cond"]


@pytest.mark.guarantee("G59")
async def test_operators_look_at_no_message(plans: Plans) -> None:
    """Whoever is inactive or interrupted is found by an index of conversations."""
    for statement in await plans.of_operators():
        if "sqlite" in plans.url:
            lines = sqlite_plan(plans.url, statement)
            assert not any("SCAN" in line and "USING" not in line for line in lines), lines
            continue
        for plan in await postgresql_plans(plans.url, statement):
            nodes = list(nodes_of(plan))
            assert plan["Total Cost"] < JIT_ABOVE
            assert {node["Relation Name"] for node in nodes if "Relation Name" in node} <= {
                "conversations",
                "runs",
            }
            assert not any(
                node["Node Type"] == "Seq Scan" and node["Relation Name"] == "conversations"
                for node in nodes
            ), plan


@pytest.mark.guarantee("G59")
@pytest.mark.parametrize("users", [1, 3])
async def test_a_plan_that_is_made_while_tables_are_small_reads_none_of_them_whole(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, users: int
) -> None:
    async with SQLMemory.open(postgres_url, migrate=True, clock=FakeClock()) as memory:
        plans = Plans(postgres_url, memory, monkeypatch)
        names = [f"user-{n}" for n in range(users)]
        with executed(monkeypatch) as seen:
            await asyncio.gather(*(plans.turn(name) for name in names))
            await asyncio.gather(
                *(memory.run_log.find(RunKey(name, "default", "r")) for name in names)
            )
        shared = {one.sql: one for one in seen if "given" in one.sql or "wanted" in one.sql}
        assert len(shared) >= 4
        for statement in shared.values():
            for plan in await postgresql_plans(postgres_url, statement):
                whole = [n for n in nodes_of(plan) if n["Node Type"] == "Seq Scan"]
                assert not [n["Relation Name"] for n in whole], statement.sql
