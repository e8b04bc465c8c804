"""What a new process knows: everything that a run stored, tool exchanges included."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from agno_sql.errors import MaxLoopsError
from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall
from tests.agent.models import (
    DEADLINE_S,
    ScriptedModel,
    agent_of,
    asks,
    call,
    contents,
    refused_by_a_provider,
    roles,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ODD = "nul \x00, escape \x10, alone \ud800, 日本語 🙂, \r\n'; DROP TABLE messages;--"


def look_up(order: int) -> str:
    return f"order {order}"


@pytest.mark.guarantee("G23")
async def test_after_a_restart_the_model_is_shown_the_tool_exchanges_exactly(
    database_url: str,
) -> None:
    calls = (call("look_up", "c1", order=1), ToolCall("c2", "look_up", '{"order":  2 }'))
    before = ScriptedModel(asks(*calls, text="Let me see."), asks(call("look_up", "c1")), "Both.")
    async with SQLMemory.open(database_url) as memory:
        agent = agent_of(before, memory, tools=[look_up], instructions="old")
        output = await agent.run("Where are 1 and 2?", "alice", run_id="r-1")

    after = ScriptedModel("Still both.")
    async with SQLMemory.open(database_url) as memory:
        agent = agent_of(after, memory, instructions="new")
        await agent.run("And now?", "alice")

    (shown,) = after.shown
    assert shown[0] == Message.system("new")
    assert tuple(shown[1:-1]) == output.messages
    assert roles(shown[1:]) == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert shown[2].tool_calls == calls
    assert [m.tool_call_id for m in shown[3:5]] == ["c1", "c2"]
    assert contents(shown[3:5]) == ["order 1", "order 2"]
    assert {m.run_id for m in shown[1:-1]} == {"r-1"}


async def test_any_text_survives_in_questions_calls_results_and_answers(database_url: str) -> None:
    odd_call = ToolCall(f"id {ODD}", "echo", '{"text": "\\u0000 \\u0010 \\\\"}')

    def echo(text: str) -> str:
        return f"{text} {ODD}"

    before = ScriptedModel(asks(odd_call, text=ODD), ODD)
    async with SQLMemory.open(database_url) as memory:
        output = await agent_of(before, memory, tools=[echo]).run(ODD, "alice")
    after = ScriptedModel("ok")
    async with SQLMemory.open(database_url) as memory:
        await agent_of(after, memory).run("again", "alice")

    assert tuple(after.shown[0][:-1]) == output.messages
    assert contents(output.messages) == [ODD, ODD, f"\x00 \x10 \\ {ODD}", ODD]
    assert output.messages[1].tool_calls == (odd_call,)


async def test_a_run_that_gave_up_goes_on_after_a_restart(database_url: str) -> None:
    async with SQLMemory.open(database_url) as memory:
        model = ScriptedModel(then=asks(call("look_up", order=1)))
        agent = agent_of(model, memory, tools=[look_up], max_loops=3)
        with pytest.raises(MaxLoopsError):
            await agent.run("go", "alice")
    async with SQLMemory.open(database_url) as memory:
        assert roles(await memory.get_messages("alice")) == ["user"] + ["assistant", "tool"] * 2
        assert await refused_by_a_provider(memory, "alice") is None


async def test_a_run_in_a_full_conversation_is_shown_whole_and_leaves_a_legal_rest(
    database_url: str,
) -> None:
    """Whatever pruning deletes meanwhile, a run sees all of its own messages."""
    many = [call("look_up", f"c{n}", order=n) for n in range(4)]
    async with SQLMemory.open(database_url, capacity=3) as memory:
        for _ in range(3):
            model = ScriptedModel(asks(*many), asks(*many), "done")
            output = await agent_of(model, memory, tools=[look_up]).run("go", "alice")
            assert roles(output.messages) == [
                "user",
                *["assistant", *["tool"] * 4] * 2,
                "assistant",
            ]
            shown = roles(model.shown[-1])
            assert shown[-11:] == ["user", *["assistant", *["tool"] * 4] * 2]
            assert await refused_by_a_provider(memory, "alice") is None


class TestRunsOfOneConversationAtOnce:
    """They go one after the other; what others add comes in between."""

    async def test_their_history_is_one_that_a_provider_accepts(self, database_url: str) -> None:
        parties = 12

        async def meet(name: str) -> str:
            await asyncio.sleep(0)
            return f"met {name}"

        def script(shown: Sequence[Message]) -> object:
            if shown[-1].role == "tool":
                return f"answer: {shown[-1].content}"
            return asks(call("meet", "same", name=shown[-1].content), call("nope", "c2"))

        model = ScriptedModel(then=script)  # type: ignore[arg-type]
        async with SQLMemory.open(database_url, capacity=None) as memory:
            agent = agent_of(model, memory, tools=[meet])
            names = [f"run-{n}" for n in range(parties)]
            async with asyncio.timeout(3 * DEADLINE_S):
                outputs = await asyncio.gather(
                    *(agent.run(name, "alice", run_id=name) for name in names)
                )
            stored = await memory.get_messages("alice")
            assert await refused_by_a_provider(memory, "alice") is None

        assert [output.content for output in outputs] == [
            "answer: UnknownToolError: there is no tool 'nope'; the tools are: meet"
        ] * parties
        assert [m.seq for m in stored] == list(range(1, 5 * parties + 1))
        for name, output in zip(names, outputs, strict=True):
            own = [m for m in stored if m.run_id == name]
            assert sorted(output.messages, key=lambda m: m.seq or 0) == own
            assert roles(own) == ["user", "assistant", "tool", "tool", "assistant"]
            assert output.messages[2].content == f"met {name}"
            seqs = [m.seq or 0 for m in own]
            assert seqs == list(range(seqs[0], seqs[0] + 5)), "no other run came in between"

    async def test_a_run_is_not_shown_what_others_add_after_its_question(self) -> None:
        thinking, go_on = asyncio.Event(), asyncio.Event()

        async def think(_: object) -> object:
            thinking.set()
            await go_on.wait()
            return asks(call("look_up", order=1))

        model = ScriptedModel(think, "answer", "ok")  # type: ignore[arg-type]
        memory = InMemory(capacity=None)
        agent = agent_of(model, memory, tools=[look_up])
        run = asyncio.create_task(agent.run("question", "alice"))
        async with asyncio.timeout(DEADLINE_S):
            await thinking.wait()
            await memory.add(Message.user("added"), "alice")
            go_on.set()
            await run
        await agent.run("last", "alice")

        assert contents(model.shown[1]) == ["question", "", "order 1"]
        assert contents(model.shown[2]) == [
            *["question", "added", "", "order 1", "answer", "last"],
        ]
