"""What of a long conversation a run shows its model, whichever memory keeps it."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.sql import SQLMemory
from agno_sql.memory.window import MISSING_RESULT
from agno_sql.message import Message, ToolCall
from tests.agent.models import ScriptedModel, Step, agent_of, asks, call, contents, roles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

IDS = st.sampled_from(["x", "y", "z"])
MESSAGES = st.one_of(
    st.sampled_from([Message.system("s"), Message.user("u"), Message.assistant("a")]),
    st.lists(IDS, min_size=1, max_size=3, unique=True).map(
        lambda ids: Message.assistant("", [ToolCall(call_id, "look_up", "{}") for call_id in ids])
    ),
    IDS.map(lambda call_id: Message.tool("result", tool_call_id=call_id, name="look_up")),
)
# How a conversation came about: what was added at once.
APPENDS = st.lists(st.lists(MESSAGES, min_size=1, max_size=5), max_size=8)
USERS = (f"user-{n}" for n in count())


def look_up(order: int) -> str:
    return f"order {order}"


@pytest.fixture
async def sql_memory(database_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url, capacity=10) as memory:
        yield memory


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(appends=APPENDS, limit=st.none() | st.integers(1, 12))
async def test_a_run_shows_the_same_whichever_memory_keeps_the_conversation(
    sql_memory: SQLMemory, appends: list[list[Message]], limit: int | None
) -> None:
    """The model refuses what a provider would, so each window is also one that it accepts."""
    user, in_memory = next(USERS), InMemory(capacity=10)
    shown = []
    for memory in (sql_memory, in_memory):
        for messages in appends:
            await memory.extend(messages, user)
        model = ScriptedModel("ok")
        await agent_of(model, memory, history_limit=limit).run("and now?", user)
        shown.append([(m.role, m.content, m.tool_calls, m.tool_call_id) for m in model.shown[0]])
    assert shown[0] == shown[1]
    systems = [m.content for m in await in_memory.get_messages(user) if m.role == "system"]
    assert [content for role, content, *_ in shown[0] if role == "system"] == systems


@pytest.mark.parametrize("limit", range(1, 13))
async def test_no_limit_cuts_a_tool_exchange_apart(limit: int) -> None:
    two_rounds: list[Step] = [
        asks(call("look_up", "c1", order=1), call("look_up", "c2", order=2)),
        asks(call("look_up", "c1", order=3)),
        "done",
    ]
    model = ScriptedModel(*two_rounds * 2, "ok")
    agent = agent_of(model, history_limit=limit, tools=[look_up])
    await agent.run("one", "alice")
    await agent.run("two", "alice")
    await agent.run("three", "alice")

    conversation = ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"] * 2
    shown = roles(model.shown[-1][:-1])
    assert MISSING_RESULT not in contents(model.shown[-1])
    assert len(shown) <= limit
    assert shown == conversation[len(conversation) - len(shown) :]
    # All that fits is shown: what is left out begins with the rest of an exchange.
    assert len(shown) == limit or conversation[-len(shown) - 1] == "tool"


async def test_the_running_turn_is_shown_whole_however_low_the_limit() -> None:
    model = ScriptedModel(
        "old",
        asks(*[call("look_up", f"c{n}", order=n) for n in range(5)]),
        asks(call("look_up", order=9)),
        "done",
    )
    agent = agent_of(model, history_limit=1, tools=[look_up])
    await agent.run("one", "alice")
    await agent.run("two", "alice")
    assert roles(model.shown[-1]) == [
        *["assistant", "user"],
        *["assistant", *["tool"] * 5],
        *["assistant", "tool"],
    ]


async def test_system_messages_are_shown_beyond_the_limit(database_url: str) -> None:
    async with SQLMemory.open(database_url) as memory:
        await memory.add(Message.system("Alice is blind."), "alice")
        model = ScriptedModel(then="ok")
        agent = agent_of(model, memory, history_limit=2, instructions="Be kind.")
        for text in ("one", "two", "three"):
            await agent.run(text, "alice")
    assert contents(model.shown[-1]) == ["Be kind.", "Alice is blind.", "two", "ok", "three"]


async def test_calls_and_results_added_by_hand_are_repaired_before_a_model_sees_them(
    database_url: str,
) -> None:
    async with SQLMemory.open(database_url) as memory:
        for message in (
            Message.tool("orphan", tool_call_id="gone"),
            Message.assistant("", [call("look_up", "c1", order=1), call("look_up", "c2", order=2)]),
            Message.user("in between"),
            Message.tool("second", tool_call_id="c2"),
        ):
            await memory.add(message, "alice")
        model = ScriptedModel("ok")
        await agent_of(model, memory).run("go", "alice")
        stored = await memory.get_messages("alice")
    assert contents(model.shown[0]) == ["", MISSING_RESULT, "second", "in between", "go"]
    assert contents(stored) == ["orphan", "", "in between", "second", "go", "ok"], "as it was"
