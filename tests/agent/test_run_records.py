"""What is stored about runs: their tokens and their errors; and how interrupted ones are found."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import event, make_url, text

from agno_sql.errors import (
    InputRejectedError,
    MaxLoopsError,
    ModelUnavailableError,
    OutputRejectedError,
    RunCancelledError,
    RunFailedError,
    RunTimeoutError,
)
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Usage
from agno_sql.models.chat_model import ModelReply
from agno_sql.runs import RunKey
from agno_sql.store.engine import open_engine
from tests.agent.durable import ANSWER, ANSWERING, ASKING, QUESTION, Shop
from tests.agent.models import DEADLINE_S, ScriptedModel, agent_of, asks, call, roles
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

    from agno_sql.agent.context import HookInput

LEASE = timedelta(seconds=15)
INTERRUPTED_OF_ALL = "recovery looks for the interrupted runs of all users"
FILL = (
    """INSERT INTO conversations
       (user_id, session_id, first_seq, last_seq, message_count, created_at, last_active_at)
       {} SELECT 'v-' || n, 'default', 1, 1, 1, '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000'""",
    """INSERT INTO runs
       (user_id, session_id, run_id, agent_id, status, attempt, input_sha256, first_seq, last_seq,
       model, input_tokens, output_tokens, started_at, finished_at)
       {} SELECT 'v-' || n, 'default', 'r-1', 'shop', 'completed', 1, '', 1, 1, 'm', 0, 0,
       '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000'""",
)
LEAK = "no connection to postgresql://app:hunter2@db"


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with Shop.open(database_url, FakeClock(), tmp_path) as opened:
        yield opened


def look_up(order: int) -> str:
    return f"order {order}"


class TestTokens:
    @pytest.mark.guarantee("G43")
    async def test_each_reply_of_the_model_carries_its_own_and_the_run_their_sum(
        self, shop: Shop
    ) -> None:
        first, second, last = Usage(10, 2), Usage(35, 4), Usage(70, 9)
        model = ScriptedModel(
            asks(call("look_up", "c1", order=1), call("look_up", "c2", order=2), usage=first),
            asks(call("look_up", "c3", order=3), usage=second),
            ModelReply("all found", usage=last),
        )
        agent = agent_of(model, shop.memory, tools=[look_up])
        output = await agent.run("go", "alice", run_id="r-1")

        stored = await shop.memory.get_messages("alice")
        assert [message.usage for message in stored] == [
            *(None, first, None, None),
            *(second, None, last),
        ]
        assert output.messages == tuple(stored)
        assert output.usage == (await shop.record()).usage == Usage(115, 15)
        again = await agent.run("go", "alice", run_id="r-1")
        assert again.usage == Usage(115, 15)

    async def test_no_count_is_too_large(self, shop: Shop) -> None:
        most = 2**62
        model = ScriptedModel(ModelReply("dear", usage=Usage(most, most + 1)))
        await agent_of(model, shop.memory).run("go", "alice", run_id="r-1")
        assert (await shop.record()).usage == Usage(most, most + 1)
        (_, answer) = await shop.memory.get_messages("alice")
        assert answer.usage == Usage(most, most + 1)

    @pytest.mark.guarantee("G43")
    async def test_a_resumed_run_counts_what_was_stored_before_the_crash(self, shop: Shop) -> None:
        await shop.interrupt("calls")
        assert (await shop.record()).status == "running"
        shop.clock.advance(LEASE)
        (output,) = await shop.agent().recover()
        stored = await shop.memory.get_messages("alice")
        assert sorted(m.usage.total_tokens for m in stored if m.usage) == [120, 157]
        assert output.usage == (await shop.record()).usage == ASKING + ANSWERING

    async def test_of_a_run_that_nobody_resumed_are_those_of_its_stored_messages(
        self, shop: Shop
    ) -> None:
        await shop.interrupt("second result")
        shop.clock.advance(LEASE)
        await shop.agent().run("something else", "alice", run_id="r-2")
        record = await shop.record()
        assert (record.error_type, record.usage) == ("RunInterruptedError", ASKING)

    async def test_of_a_rejected_answer_are_counted_though_it_is_not_stored(
        self, shop: Shop
    ) -> None:
        def reject(given: HookInput) -> None:
            raise OutputRejectedError("not like that")

        with pytest.raises(OutputRejectedError):
            await shop.agent(post_hooks=[reject]).run(QUESTION, "alice", run_id="r-1")
        assert ANSWER not in [m.content for m in await shop.memory.get_messages("alice")]
        assert (await shop.record()).usage == ASKING + ANSWERING

    async def test_of_the_last_reply_are_counted_when_a_run_gives_up(self, shop: Shop) -> None:
        model = ScriptedModel(then=asks(call("look_up", order=1), usage=Usage(10, 1)))
        agent = agent_of(model, shop.memory, tools=[look_up], max_loops=3)
        with pytest.raises(MaxLoopsError) as gave_up:
            await agent.run("go", "alice", run_id="r-1")
        assert gave_up.value.output.usage == (await shop.record()).usage == Usage(30, 3)


class TestErrors:
    async def test_the_librarys_own_are_kept_with_their_message(self, shop: Shop) -> None:
        odd = "no route; nul \x00, alone \ud800, 日本語"
        model = ScriptedModel(
            asks(call("look_up", order=1), usage=ASKING), ModelUnavailableError(odd)
        )
        agent = agent_of(model, shop.memory, tools=[look_up])
        with pytest.raises(ModelUnavailableError):
            await agent.run("go", "alice", run_id="r-1")
        assert await shop.told() == ("failed", "ModelUnavailableError", odd)
        assert (await shop.record()).usage == ASKING
        with pytest.raises(RunFailedError, match="no route") as failed:
            await agent.run("go", "alice", run_id="r-1")
        assert failed.value.error_type == "ModelUnavailableError"
        assert len(model.shown) == 2

    @pytest.mark.guarantee("G43")
    @pytest.mark.parametrize("where", ["pre_hook", "model", "post_hook"])
    async def test_others_are_kept_without_their_message_which_may_hold_secrets(
        self, shop: Shop, where: str
    ) -> None:
        def fail(_: object) -> Any:
            raise ConnectionError(LEAK)

        model = ScriptedModel(fail if where == "model" else "fine")
        hooks = {} if where == "model" else {f"{where}s": [fail]}
        with pytest.raises(ConnectionError):
            await agent_of(model, shop.memory, **hooks).run("go", "alice", run_id="r-1")

        everything = await all_rows(shop.url)
        assert "hunter2" not in everything
        if where == "pre_hook":
            assert await shop.memory.get_run("r-1", "alice") is None
        else:
            assert await shop.told() == ("failed", "ConnectionError", "")
            assert "ConnectionError" in everything

    async def test_what_a_pre_hook_rejects_is_not_known_afterwards(self, shop: Shop) -> None:
        def reject(given: HookInput) -> None:
            raise InputRejectedError("not in here")

        model = ScriptedModel("fine")
        with pytest.raises(InputRejectedError):
            await agent_of(model, shop.memory, pre_hooks=[reject]).run("go", "alice", run_id="r-1")
        assert await shop.memory.get_run("r-1", "alice") is None
        output = await agent_of(model, shop.memory).run("go", "alice", run_id="r-1")
        assert output.content == "fine"

    async def test_a_very_long_message_is_cut(self, shop: Shop) -> None:
        model = ScriptedModel(ModelUnavailableError("x" * 1_000_000))
        with pytest.raises(ModelUnavailableError):
            await agent_of(model, shop.memory).run("go", "alice", run_id="r-1")
        assert await shop.told() == ("failed", "ModelUnavailableError", "x" * 2000)

    @pytest.mark.parametrize("how", ["task", "cancel_run", "timeout"])
    async def test_a_run_that_was_ended_from_outside_keeps_why_and_what_it_cost(
        self, shop: Shop, how: str
    ) -> None:
        waiting = asyncio.Event()

        async def wait() -> str:
            waiting.set()
            await asyncio.Event().wait()
            return "never"

        model = ScriptedModel(asks(call("wait"), usage=ASKING))
        agent = agent_of(model, shop.memory, tools=[wait])
        limit = timedelta(seconds=2) if how == "timeout" else None
        run = asyncio.create_task(agent.run("go", "alice", run_id="r-1", timeout=limit))
        async with asyncio.timeout(DEADLINE_S):
            await waiting.wait()
            if how == "task":
                run.cancel()
            elif how == "cancel_run":
                assert await agent.cancel_run("r-1", "alice")
            (error,) = await asyncio.gather(run, return_exceptions=True)

        expected = {
            "task": (asyncio.CancelledError, "cancelled", "RunCancelledError", ""),
            "cancel_run": (
                *(RunCancelledError, "cancelled", "RunCancelledError"),
                "run r-1 was cancelled",
            ),
            "timeout": (
                *(RunTimeoutError, "failed", "RunTimeoutError"),
                "run r-1 took longer than 2 s",
            ),
        }
        assert (type(error), *await shop.told()) == expected[how]
        assert (await shop.record()).usage == ASKING
        assert roles(await shop.memory.get_messages("alice")) == ["user", "assistant", "tool"]


class TestRecords:
    async def test_tell_who_ran_what_and_when(self, shop: Shop) -> None:
        began = shop.clock.now()

        def think(_: object) -> str:
            shop.clock.advance(timedelta(seconds=2))
            return "fine"

        agent = agent_of(ScriptedModel(think), shop.memory, id="agent-7")
        await agent.run("grüß \ud800", "alice", session_id="s", run_id="r-1")
        record = await shop.memory.get_run("r-1", "alice", session_id="s")
        assert record is not None
        assert (record.user_id, record.session_id, record.run_id) == ("alice", "s", "r-1")
        assert (record.agent_id, record.model, record.attempt) == ("agent-7", "scripted-1", 1)
        assert record.status == "completed"
        assert record.started_at == began
        assert record.finished_at == began + timedelta(seconds=2)
        assert (record.error_type, record.error_message) == (None, None)
        assert record.cancel_requested_at is None
        in_utf8 = "grüß ".encode() + b"\xed\xa0\x80"
        assert record.input_sha256 == hashlib.sha256(in_utf8).hexdigest()

    async def test_are_those_of_one_conversation(self, shop: Shop) -> None:
        agent = agent_of(ScriptedModel("fine"), shop.memory)
        await agent.run("go", "alice", session_id="s", run_id="r-1")
        assert await shop.memory.get_run("r-1", "alice", session_id="s") is not None
        assert await shop.memory.get_run("r-1", "alice") is None
        assert await shop.memory.get_run("r-1", "bob", session_id="s") is None
        assert await shop.memory.get_run("r-2", "alice", session_id="s") is None

    async def test_tell_of_a_run_at_work_and_of_who_wants_it_cancelled(self, shop: Shop) -> None:
        await shop.interrupt("calls")
        began = shop.clock.now()
        asked_at = shop.clock.advance(timedelta(seconds=1))
        record = await shop.record()
        assert (record.status, record.started_at, record.finished_at) == ("running", began, None)
        assert (record.attempt, record.cancel_requested_at) == (1, None)
        assert await shop.agent().cancel_run("r-1", "alice")
        assert (await shop.record()).cancel_requested_at == asked_at


class TestFindingInterruptedRuns:
    @pytest.mark.guarantee("G36")
    async def test_reads_the_index_of_running_ones_however_many_conversations_there_are(
        self, shop: Shop
    ) -> None:
        """200,000 conversations with an ended run each; of 6 others, 3 runs are to be found."""
        for user in ("u-1", "u-2", "u-3"):
            await shop.interrupt("calls", user_id=user)
        for user in ("u-4", "u-5"):
            await shop.interrupt("calls", user_id=user, id="other shop")
        shop.clock.advance(LEASE)
        await shop.interrupt("calls", user_id="u-0")  # its lease is live
        fill(shop.url, 200_000)

        engine = open_engine(shop.url)
        try:
            log = SQLMemory(engine, clock=shop.clock).run_log
            with statements_of(engine) as executed:
                first = await log.interrupted("shop", limit=2, after=None)
                second = await log.interrupted("shop", limit=2, after=first[-1])
            assert [key.user_id for key in first + second] == ["u-1", "u-2", "u-3"]
            assert isinstance(first[0], RunKey)
            assert len(executed) == 2
            for statement, parameters in executed:
                await assert_finds_by_index(engine, statement, parameters)
        finally:
            await engine.dispose()


async def assert_finds_by_index(engine: AsyncEngine, statement: str, parameters: Any) -> None:
    is_sqlite = engine.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN (FORMAT JSON)"
    async with engine.connect() as conn:
        found = await conn.exec_driver_sql(
            f"{explain} {statement}",
            parameters,
            execution_options={"cross_tenant": INTERRUPTED_OF_ALL},
        )
        rows = found.all()
    if is_sqlite:
        plan = [row.detail for row in rows]
        by_index = "USING INDEX ix_conversations_running"
        assert len(plan) == 2, plan
        assert plan[0].startswith(("SCAN conversations", "SEARCH conversations")), plan
        assert by_index in plan[0].replace("COVERING ", ""), plan
        assert plan[1].startswith("SEARCH runs USING "), plan
        return
    # Drivers prepare statements, and after some executions PostgreSQL plans for any values.
    plans = [rows[0][0], generic_plan(engine.url, statement)]
    for plan in plans:
        nodes = list(nodes_of(plan[0]["Plan"]))
        assert not any(node["Node Type"] == "Seq Scan" for node in nodes), plan
        # The runs themselves are then looked up one by one, by an index of their own.
        indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
        of_conversations = {name for name in indexes if "conversations" in name}
        assert of_conversations == {"ix_conversations_running"}, plan


def fill(url: str, count: int) -> None:
    """Add *count* conversations with a run that has ended each, and have the planner count them."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        numbers = (
            f"WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count})"
        )
        statements = [f"{into.format(numbers)} FROM s" for into in FILL]
        with closing(sqlite3.connect(str(parsed.database))) as db, db:
            for statement in statements:
                db.execute(statement)
            db.execute("ANALYZE")
        return
    statements = [f"{into.format('')} FROM generate_series(1, {count}) AS s (n)" for into in FILL]
    with psycopg.connect(plain(url), autocommit=True) as server:
        # Foreign keys are not checked in this role, row by row: most of the time it would take.
        for statement in ("SET session_replication_role = replica", *statements, "ANALYZE"):
            server.execute(statement)


def plain(url: str | URL) -> str:
    """Return *url* as psycopg takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def generic_plan(url: URL, statement: str) -> Any:
    with psycopg.connect(plain(url)) as server:
        row = server.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement}").fetchone()
    assert row is not None
    return row[0]


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan of PostgreSQL."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes_of(inner)


@contextmanager
def statements_of(engine: AsyncEngine) -> Iterator[list[tuple[str, Any]]]:
    """Yield what *engine* executes meanwhile, with its parameters."""
    executed: list[tuple[str, Any]] = []

    def see(_conn: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        executed.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", see)
    try:
        yield executed
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", see)


async def all_rows(url: str) -> str:
    """Return everything that is stored in agno_sql's tables."""
    engine = open_engine(url)
    stored = ""
    async with engine.connect() as conn:
        for table in ("conversations", "messages", "runs"):
            rows = await conn.execute(text(f"SELECT * FROM {table} WHERE user_id = 'alice'"))
            stored += "\n".join(str(row) for row in rows)
    await engine.dispose()
    return stored
