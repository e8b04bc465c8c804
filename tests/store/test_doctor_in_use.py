"""Whatever the library itself does or lets be done is no finding of the doctor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agno_sql.clock import SystemClock
from agno_sql.errors import MaxLoopsError, ModelUnavailableError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, Usage
from tests.agent.models import DEADLINE_S, ScriptedModel, agent_of, asks, call
from tests.store.examined import LEASE, ask, begin_a_run, findings, look
from tests.support.clock import FakeClock


@pytest.mark.guarantee("G50")
async def test_a_database_in_use_has_no_findings(database_url: str) -> None:
    clock = FakeClock()
    async with SQLMemory.open(database_url, migrate=True, clock=clock, capacity=6) as memory:
        await live_a_busy_life(memory, clock)
    ended_and_not = {status for (status,) in ask(database_url, "SELECT status FROM runs")}
    assert ended_and_not == {"running", "completed", "failed", "cancelled"}
    assert ask(
        database_url,
        "SELECT 1 FROM runs JOIN conversations AS c USING (user_id, session_id)"
        " WHERE runs.first_seq < c.first_seq AND status = 'completed'",
    ), "no prune has cut a run"
    assert await findings(database_url, now=clock.now()) == []


async def live_a_busy_life(memory: SQLMemory, clock: FakeClock) -> None:
    """Do whatever is allowed: runs that end in all ways, prunes, clears, and odd adds by hand."""

    async def run(user: str, *script: Any, **more: Any) -> None:
        await agent_of(ScriptedModel(*script), memory, tools=[look], **more).run("Where?", user)

    two = asks(call("look", "c1", order=1), call("look", "c2", order=2), usage=Usage(7, 2))
    for _ in range(3):
        await memory.add(Message.system("be kind"), "ann")
        await run("ann", two, two, "on its way")
        await memory.extend([Message.assistant("", [call("by hand")]), Message.user("?")], "ann")
    with pytest.raises(ModelUnavailableError):
        await run("ben", two, ModelUnavailableError("down"))
    with pytest.raises(MaxLoopsError):
        await run("ben", two, two, max_loops=2)
    await cancel_a_run_in_its_tool(memory, "cleo")
    # Dies, and another run closes it; dies, and stays interrupted for a moment.
    for run_id in ("died", "dies"):
        await begin_a_run(memory.run_log, "o'neil; DROP TABLE runs", run_id)
        await memory.add(Message.user("meanwhile"), "o'neil; DROP TABLE runs")
        clock.advance(LEASE)
    # By hand anything goes: halves of exchanges, names of runs, copies of what runs stored.
    torn = [Message.tool("found", tool_call_id="gone"), Message.assistant("", [call("look")])]
    named = [
        Message(role="assistant", content="", tool_calls=two.tool_calls, run_id="r9", run_step=3)
    ]
    for user in ("ann", "ben", "dan"):
        copies = [message for message in await memory.get_messages(user) if message.tool_calls]
        await memory.extend([*torn, *named, *copies], user, session_id="copies")
        await memory.extend([*torn, *named, *copies], user)
    await run("eve", two, "on its way")
    await memory.clear("eve")
    await begin_a_run(memory.run_log, "fay", "cleared")
    await memory.clear("fay")
    await memory.add(Message.user("again"), "fay")
    await run("gil", two, "on its way")
    await memory.erase("gil")
    # Longer than the capacity, so pruned within; and a call that is pruned comes back by hand.
    agent = agent_of(ScriptedModel(two, two, "on its way"), memory, tools=[look])
    output = await agent.run("Where?", "hal")
    await memory.add(output.messages[1], "hal")


async def cancel_a_run_in_its_tool(memory: SQLMemory, user: str) -> None:
    called = asyncio.Event()

    async def wait() -> str:
        called.set()
        await asyncio.Event().wait()
        return "never"

    model = ScriptedModel(asks(call("wait")))
    running = asyncio.create_task(agent_of(model, memory, tools=[wait]).run("go", user))
    async with asyncio.timeout(DEADLINE_S):
        await called.wait()
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()


@pytest.mark.guarantee("G50")
async def test_what_others_write_meanwhile_is_no_finding(database_url: str) -> None:
    rounds, has_looked = asks(call("look", order=1)), asyncio.Event()
    async with SQLMemory.open(database_url, migrate=True, capacity=6) as memory:

        async def talk(user: str) -> None:
            agent = agent_of(ScriptedModel(then=answer_or_look), memory, tools=[look])
            while not has_looked.is_set():
                await agent.run("Where?", user)
                await memory.add(Message.user("thanks"), user)

        def answer_or_look(shown: Any) -> Any:
            return rounds if shown[-1].role == "user" else "on its way"

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for n in range(8):
                group.create_task(talk(f"user-{n}"))
            try:
                for _ in range(8):
                    assert await findings(database_url, now=SystemClock().now()) == []
            finally:
                has_looked.set()
