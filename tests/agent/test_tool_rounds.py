"""Rounds of tool calls: at once, in order, whatever ids a provider hands out."""

import asyncio
import threading
from itertools import product
from typing import Any

import pytest

from agno_sql.agent.context import RunContext
from agno_sql.agent.events import ToolReturned
from agno_sql.memory.in_memory import InMemory
from agno_sql.message import Message, ToolCall
from tests.agent.models import (
    DEADLINE_S,
    ScriptedModel,
    Step,
    agent_of,
    asks,
    call,
    contents,
    refused_by_a_provider,
    roles,
)


async def key(context: RunContext) -> str:
    return context.idempotency_key


def paired(messages: list[Message]) -> list[tuple[str | None, str]]:
    return [(m.tool_call_id, m.content) for m in messages if m.role == "tool"]


async def test_async_calls_of_one_round_run_at_the_same_time() -> None:
    parties = 20
    arrived, all_here = [0], asyncio.Event()

    async def meet() -> str:
        arrived[0] += 1
        if arrived[0] == parties:
            all_here.set()
        await all_here.wait()
        return "met"

    model = ScriptedModel(asks(*[call("meet", f"c{n}") for n in range(parties)]), "done")
    async with asyncio.timeout(DEADLINE_S):
        await agent_of(model, tools=[meet]).run("go")
    assert contents(model.shown[1], "tool") == ["met"] * parties


@pytest.mark.parametrize("parties", [2, 5, 40])
async def test_plain_calls_of_one_round_run_at_the_same_time(parties: int) -> None:
    barrier = threading.Barrier(parties)

    def meet() -> str:
        barrier.wait(timeout=20)
        return "met"

    model = ScriptedModel(asks(*[call("meet", f"c{n}") for n in range(parties)]), "done")
    await agent_of(model, tools=[meet]).run("go")
    assert contents(model.shown[1], "tool") == ["met"] * parties


async def test_a_plain_and_an_async_call_of_one_round_can_wait_for_each_other() -> None:
    loop = asyncio.get_running_loop()
    asked, answered = asyncio.Event(), threading.Event()

    def ask() -> bool:
        loop.call_soon_threadsafe(asked.set)
        return answered.wait(timeout=20)

    async def answer() -> str:
        await asked.wait()
        answered.set()
        return "answered"

    model = ScriptedModel(asks(call("answer", "c1"), call("ask", "c2")), "done")
    async with asyncio.timeout(DEADLINE_S):
        await agent_of(model, tools=[ask, answer]).run("go")
    assert contents(model.shown[1], "tool") == ["answered", "true"]


@pytest.mark.guarantee("G24")
async def test_results_are_shown_in_call_order_whatever_finishes_first() -> None:
    memory, finished = InMemory(), []
    turn = {name: asyncio.Event() for name in "abc"}
    turn["c"].set()

    async def wait_for(name: str) -> str:
        await turn[name].wait()
        finished.append(name)
        if name != "a":
            turn["ab"["cb".index(name) - 1] if name == "b" else "b"].set()
        return name

    wanted = [call("wait_for", f"call_{name}", name=name) for name in "abc"]
    model = ScriptedModel(asks(*wanted), "done")
    async with asyncio.timeout(DEADLINE_S):
        output = await agent_of(model, memory, tools=[wait_for]).run("go", "alice")

    assert finished == ["c", "b", "a"]
    in_order = [("call_a", "a"), ("call_b", "b"), ("call_c", "c")]
    assert paired(model.shown[1]) == in_order
    assert paired(await memory.get_messages("alice")) == in_order[::-1]
    assert paired(list(output.messages)) == in_order


async def test_one_failing_call_does_not_disturb_its_neighbours() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        started.set()
        await go_on.wait()
        return "done anyway"

    async def fail() -> None:
        await started.wait()
        go_on.set()
        raise ValueError("no")

    wanted = [call("slow", "c1"), call("fail", "c2"), call("nope", "c3"), call("slow", "c4", x=1)]
    model = ScriptedModel(asks(*wanted), "done")
    async with asyncio.timeout(DEADLINE_S):
        await agent_of(model, tools=[slow, fail]).run("go")
    first, second, third, fourth = contents(model.shown[1], "tool")
    assert (first, second) == ("done anyway", "ValueError: no")
    assert "UnknownToolError" in third
    assert "x" in fourth


async def test_each_step_is_stored_before_the_next_begins() -> None:
    """A tool finds its call stored, and the result of another one as soon as that has ended."""
    memory, first_is_stored = InMemory(), asyncio.Event()

    async def peek(context: RunContext) -> str:
        return " ".join(roles(await memory.get_messages(context.user_id)))

    async def peek_later(context: RunContext) -> str:
        await first_is_stored.wait()
        return await peek(context)

    model = ScriptedModel(
        asks(call("peek_later", "c1"), call("peek", "c2")), asks(call("peek")), "done"
    )
    agent = agent_of(model, memory, tools=[peek, peek_later])
    async with asyncio.timeout(DEADLINE_S):
        async for event in agent.stream("go", "alice"):
            if isinstance(event, ToolReturned):
                first_is_stored.set()
    assert contents(model.shown[-1], "tool") == [
        "user assistant tool",
        "user assistant",
        "user assistant tool tool assistant",
    ]


async def test_a_call_id_that_repeats_over_rounds_gets_each_result_where_it_belongs() -> None:
    memory, count = InMemory(), iter(range(100))

    def following() -> int:
        return next(count)

    again: list[Step] = [asks(call("following", "same"))] * 3
    model = ScriptedModel(*again, "done", *again, "done", then="ok")
    agent = agent_of(model, memory, tools=[following], max_loops=4)
    await agent.run("one", "alice")
    await agent.run("two", "alice")
    await agent.run("three", "alice")
    assert contents(model.shown[-1], "tool") == ["0", "1", "2", "3", "4", "5"]
    assert roles(model.shown[-1]) == ["user", *["assistant", "tool"] * 3, "assistant"] * 2 + [
        "user"
    ]


async def test_a_call_id_that_repeats_within_a_round_leaves_a_conversation_that_goes_on() -> None:
    memory = InMemory()

    def echo(text: str) -> str:
        return text

    twins = asks(call("echo", "same", text="one"), call("echo", "same", text="two"))
    model = ScriptedModel(twins, "done")
    try:
        await agent_of(model, memory, tools=[echo]).run("go", "alice")
    finally:
        stored = await memory.get_messages("alice")
        assert contents(stored, "tool") in ([], ["one", "two"])
        assert await refused_by_a_provider(memory, "alice") is None


class TestIdempotencyKey:
    """One key for one place in one run, whatever the provider calls it."""

    async def test_keys_differ_by_user_session_run_round_and_position(self) -> None:
        keys: list[str] = []
        same = asks(call("key", "same"), call("key", "other"))
        for user, session, run in product(("a", "a1"), ("s", "1s"), ("r", "1r")):
            model = ScriptedModel(same, same, "done")
            agent = agent_of(model, tools=[key])
            await agent.run("go", user, session_id=session, run_id=run)
            keys += contents(model.shown[-1], "tool")
        assert len(keys) == 2 * 2 * 2 * 2 * 2
        assert len(set(keys)) == len(keys)
        assert all(keys)

    async def test_ids_that_read_alike_when_joined_give_different_keys(self) -> None:
        keys = set()
        for user, session in (("a", "b:c"), ("a:b", "c"), ('a", "b', "c"), ("a", 'b", "c')):
            model = ScriptedModel(asks(call("key")), "done")
            await agent_of(model, tools=[key]).run("go", user, session_id=session, run_id="r")
            keys.update(contents(model.shown[-1], "tool"))
        assert len(keys) == 4

    @pytest.mark.parametrize("call_ids", [("x", "y"), ("p", "q")])
    async def test_the_key_of_a_place_is_the_same_whenever_that_run_is_made_again(
        self, call_ids: tuple[str, str]
    ) -> None:
        async def keys_of_a_run(first: str, second: str) -> list[str]:
            model = ScriptedModel(asks(call("key", first)), asks(call("key", second)), "done")
            await agent_of(model, tools=[key]).run("go", "a", session_id="s", run_id="r")
            return contents(model.shown[-1], "tool")

        assert await keys_of_a_run(*call_ids) == await keys_of_a_run("x", "x")


async def test_calls_with_odd_ids_names_and_arguments_are_stored_and_answered_exactly() -> None:
    memory = InMemory()
    odd = [
        ToolCall("\x00", "nul\x00name", "\x00"),
        ToolCall("\ud800", "alone \ud800", '{"a": "\ud800"}'),
        ToolCall("ü" * 500, "x" * 500, "  {} "),
    ]
    model = ScriptedModel(asks(*odd), "done")
    await agent_of(model, memory).run("go", "alice")
    stored = await memory.get_messages("alice")
    assert stored[1].tool_calls == tuple(odd)
    assert [m.tool_call_id for m in stored[2:5]] == [wanted.id for wanted in odd]


async def test_a_blocking_tool_of_one_run_does_not_block_other_runs() -> None:
    loop = asyncio.get_running_loop()
    entered, release = asyncio.Event(), threading.Event()

    def block() -> str:
        loop.call_soon_threadsafe(entered.set)
        return "free" if release.wait(timeout=20) else "never released"

    def quick() -> str:
        return "quick"

    def script(shown: Any) -> Any:
        if shown[-1].role == "tool":
            return shown[-1].content
        return asks(call(shown[-1].content))

    agent = agent_of(ScriptedModel(then=script), tools=[block, quick])
    blocked = asyncio.create_task(agent.run("block", "alice"))
    try:
        async with asyncio.timeout(DEADLINE_S):
            await entered.wait()
            others = [agent.run("quick", f"user-{n}") for n in range(50)]
            outputs = await asyncio.gather(*others)
        assert not blocked.done()
    finally:
        release.set()
    assert {output.content for output in outputs} == {"quick"}
    assert (await blocked).content == "free"


async def test_any_number_of_blocking_tools_leaves_the_other_runs_going() -> None:
    """64 users wait for something slow; neither tools nor the loop's name look-ups may stop."""
    loop = asyncio.get_running_loop()
    release, entered = threading.Event(), asyncio.Event()

    def block() -> str:
        loop.call_soon_threadsafe(entered.set)
        release.wait(timeout=20)
        return "free"

    async def look_a_name_up() -> str:
        return str(bool(await loop.getaddrinfo("localhost", 80)))

    def script(shown: Any) -> Any:
        if shown[-1].role == "tool":
            return shown[-1].content
        return asks(call(shown[-1].content))

    agent = agent_of(ScriptedModel(then=script), tools=[block, look_a_name_up])
    blocked = [asyncio.create_task(agent.run("block", f"user-{n}")) for n in range(64)]
    try:
        async with asyncio.timeout(15):
            await entered.wait()
            output = await agent.run("look_a_name_up", "alice")
    finally:
        release.set()
        await asyncio.gather(*blocked)
    assert output.content == "True"
