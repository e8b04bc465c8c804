"""A durable PostgreSQL that is killed (SIGKILL) again and again while users are at work."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final

import pytest

from agno_sql.agent.context import RunContext  # noqa: TC001  (tools are read at run time)
from agno_sql.errors import OutcomeUnknownError, StoreUnavailableError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.store.engine import open_engine
from tests.agent.models import ScriptedModel, agent_of, contents
from tests.faults.checks import assert_answered, assert_numbered, runs_in, until, without_leaks
from tests.faults.storm import round_then_answer
from tests.support.postgres import upgrade_to_head

if TYPE_CHECKING:
    from agno_sql.agent.output import RunOutput
    from tests.support.postgres import PrivatePostgres

ADDERS: Final = [f"adder-{n:02}" for n in range(20)]
RUNNERS: Final = [f"runner-{n:02}" for n in range(20)]
HELD: Final = frozenset(RUNNERS[::2])  # whose tools are at work whenever the server is killed
KILLS: Final = 3
PROGRESS_WITHIN_S: Final = 60.0  # of all 40 users, on a machine that is busy otherwise


class Load:
    """Users who add or run, each one thing after another, until ``is_over``."""

    def __init__(self, memory: SQLMemory) -> None:
        self.memory = memory
        self.agent = agent_of(
            ScriptedModel(then=round_then_answer),
            memory,
            tools=[self.echo],
            # A run that could not go on is waited for as long as its lease lasts.
            lease=timedelta(seconds=2),
        )
        self.is_over = False
        self.server_is_up = asyncio.Event()
        self.tools_go_on = asyncio.Event()
        self.server_is_up.set()
        self.tools_go_on.set()
        self.acknowledged: defaultdict[str, list[Message]] = defaultdict(list)
        self.answers: defaultdict[str, list[RunOutput]] = defaultdict(list)
        self.not_stored: set[str] = set()
        self.unknown: set[str] = set()
        self.runs_told: set[str] = set()
        self.tool_calls: Counter[str] = Counter()
        self.in_tools: Counter[str] = Counter()

    async def echo(self, context: RunContext, text: str) -> str:
        self.tool_calls[context.idempotency_key] += 1
        if context.user_id in HELD:
            self.in_tools[context.run_id] += 1
            await self.tools_go_on.wait()
            self.in_tools -= Counter([context.run_id])
        return text

    async def add(self, user: str) -> None:
        n = 0
        while not self.is_over:
            await self.server_is_up.wait()
            content = f"{user}.{n}"
            try:
                self.acknowledged[user].append(await self.memory.add(Message.user(content), user))
            except StoreUnavailableError:
                self.not_stored.add(content)
            except OutcomeUnknownError:
                self.unknown.add(content)
            n += 1

    async def run(self, user: str) -> None:
        while not self.is_over:
            run_id = f"{user}.{len(self.answers[user])}"
            await self.server_is_up.wait()
            try:
                answer = await self.agent.run(run_id, user, run_id=run_id)
            except StoreUnavailableError:
                self.runs_told.add(run_id)
            else:
                self.answers[user].append(answer)

    def done(self) -> dict[str, int]:
        return {user: len(self.acknowledged[user]) + len(self.answers[user]) for user in USERS}

    async def progress(self) -> None:
        """Return when every user has got on."""
        before = self.done()
        await until(
            lambda: all(now > before[user] for user, now in self.done().items()),
            within_s=PROGRESS_WITHIN_S,
        )

    async def outage(self, server: PrivatePostgres) -> set[str]:
        """Kill the server among all users' work; return the runs whose tools outlived that."""
        self.tools_go_on.clear()
        await until(lambda: len(self.in_tools) == len(HELD), within_s=PROGRESS_WITHIN_S)
        told = len(self.not_stored) + len(self.unknown)
        await asyncio.to_thread(server.kill)
        at_work = set(self.in_tools)
        self.tools_go_on.set()
        await until(lambda: len(self.not_stored) + len(self.unknown) > told)
        self.server_is_up.clear()
        await asyncio.to_thread(server.start_again)
        self.server_is_up.set()
        return at_work


USERS: Final = [*ADDERS, *RUNNERS]


@pytest.mark.guarantee("G45")
@pytest.mark.timeout(300)
async def test_whatever_was_acknowledged_outlives_a_server_that_is_killed_under_load(
    own_postgres: PrivatePostgres,
) -> None:
    await asyncio.to_thread(upgrade_to_head, own_postgres.url)
    async with without_leaks(open_engine(own_postgres.url), own_postgres.url) as engine:
        memory = SQLMemory(engine, capacity=None)
        load = Load(memory)
        at_work: set[str] = set()
        async with asyncio.TaskGroup() as group:
            for user in ADDERS:
                group.create_task(load.add(user))
            for user in RUNNERS:
                group.create_task(load.run(user))
            for _ in range(KILLS):
                await load.progress()
                at_work |= await load.outage(own_postgres)
            await load.progress()
            load.is_over = True

        assert len(at_work) == KILLS * len(HELD)
        assert not at_work & load.runs_told, "a run that was at work did not wait for the database"
        assert max(load.tool_calls.values()) == 1
        for user in ADDERS:
            await assert_added(memory, user, load)
        for user in RUNNERS:
            await assert_answered_in_order(memory, user, load.answers[user])


async def assert_added(memory: SQLMemory, user: str, load: Load) -> None:
    """Require all that *user* was acknowledged, and beyond it only what was left unknown."""
    stored = await memory.get_messages(user)
    assert_numbered(stored)
    sent = [int(message.content.removeprefix(f"{user}.")) for message in stored]
    assert sent == sorted(set(sent))
    found = set(contents(stored))
    assert not found & load.not_stored
    acknowledged = load.acknowledged[user]
    assert found - set(contents(acknowledged)) <= load.unknown
    assert [m for m in stored if m.content not in load.unknown] == acknowledged


async def assert_answered_in_order(memory: SQLMemory, user: str, answers: list[RunOutput]) -> None:
    """Require that *user*'s runs are all complete, each once, and nothing else is there."""
    stored = await memory.get_messages(user)
    assert_numbered(stored)
    runs = runs_in(stored)
    assert list(runs) == [f"{user}.{n}" for n in range(len(answers))]
    assert len(stored) == len(list(chain(*runs.values())))
    for (run_id, turn), answer in zip(runs.items(), answers, strict=True):
        assert_answered(turn)
        assert answer.content == turn[-1].content
        assert list(answer.messages) == turn
        assert all(run_id in m.content for m in turn if m.role == "user")
        record = await memory.get_run(run_id, user)
        assert record is not None
        assert record.status == "completed"
