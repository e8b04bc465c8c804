"""Streams: what they tell, and what becomes of a task whose client goes away."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from a2a.types import StreamResponse, Task
from a2a.utils.errors import UnsupportedOperationError

from tests.a2a.clients import (
    COMPLETED,
    WORKING,
    HeldModel,
    answer,
    entered,
    merge,
    talking,
    talking_to_two,
    when_ended,
)
from tests.agent.models import ScriptedModel, agent_of, asks, call
from tests.support.runner import Gate

if TYPE_CHECKING:
    from agno_sql.memory.sql import SQLMemory
    from tests.a2a.clients import Other


class TestAClientThatGoesAway:
    """Loses nothing: the task ends without it, and can be asked for."""

    @pytest.mark.guarantee("G80")
    @pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
    async def test_in_the_middle_of_a_stream(self, memory: SQLMemory, binding: str) -> None:
        gate = Gate()
        model = HeldModel(gate)
        async with talking(agent_of(model, memory), binding, streams=True) as other:
            task = Task()
            async with aclosing(other.events("x", "alice")) as events:  # type: ignore[type-var]
                async for event in events:
                    merge(task, event)
                    if task.artifacts and answer(task) == "half an ":
                        break
            assert (await other.get(task.id)).status.state == WORKING
            gate.opened.set()
            ended = await when_ended(other, task.id)
            assert answer(ended) == "half an answer"
        assert not gate.was_cancelled
        assert len(model.shown) == 1

    @pytest.mark.guarantee("G80")
    async def test_while_it_waits_for_the_answer(self, memory: SQLMemory) -> None:
        gate = Gate()
        async with talking(agent_of(ScriptedModel(gate.think), memory)) as other:
            asked = asyncio.create_task(other.say("x", "alice", message_id="m"))
            await entered(gate)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            gate.opened.set()
            assert answer(await other.say("x", "alice", message_id="m")) == "let go"
        assert not gate.was_cancelled

    @pytest.mark.guarantee("G80")
    async def test_and_its_server_that_stops(self, memory: SQLMemory) -> None:
        """What the one has begun is gone on with by another, under the same id."""
        gate = Gate()
        agent = agent_of(ScriptedModel(gate.think, "after all"), memory)
        async with talking(agent, grace=timedelta(0)) as other:
            begun = await other.say("x", "alice", at_once=True)
            await entered(gate)
        async with talking(agent) as other:
            assert answer(await when_ended(other, begun.id)) == "after all"


class TestSubscribing:
    """Follows a task that is at work."""

    @pytest.mark.guarantee("G80")
    @pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
    async def test_tells_it_from_its_beginning_to_its_end(
        self, memory: SQLMemory, binding: str
    ) -> None:
        gate = Gate()
        async with talking(agent_of(HeldModel(gate), memory), binding, streams=True) as other:
            begun = await first_task(other)
            await entered(gate)
            followed = Task()
            async for event in other.subscribe(begun.id):
                merge(followed, event)
                gate.opened.set()
            assert followed.status.state == COMPLETED
            assert answer(followed) == "half an answer"
            with pytest.raises(UnsupportedOperationError, match="ended"):
                async for _ in other.subscribe(begun.id):
                    pass

    @pytest.mark.guarantee("G80")
    async def test_in_another_process_tells_the_answer(self, database_url: str) -> None:
        gate = Gate()
        async with talking_to_two(database_url, gate, streams=True) as (other, elsewhere):
            begun = await first_task(other)
            followed = Task()
            async for event in elsewhere.subscribe(begun.id):
                merge(followed, event)
                gate.opened.set()
            assert answer(followed) == "let go"


class TestEvents:
    """What a stream tells of an answer, piece by piece."""

    async def test_text_before_a_tool_call_is_replaced_by_the_answer(
        self, sqlite_memory: SQLMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All is told, though the run ends before the server looks whether it is stored."""
        monkeypatch.setattr("agno_sql.server.a2a.handler._FIRST_PAUSE_S", 0.5)

        def look() -> str:
            return "42"

        model = ScriptedModel(asks(call("look"), text="let me look"), "it is 42")
        agent = agent_of(model, sqlite_memory, tools=[look])
        async with talking(agent, streams=True) as other:
            events = [event async for event in other.events("x", "alice")]
        said = [
            (e.artifact_update.append, e.artifact_update.artifact.parts[0].text)
            for e in events
            if e.HasField("artifact_update")
        ]
        assert said == [
            (False, "let "),
            (True, "me "),
            (True, "look"),
            (False, "it "),
            (True, "is "),
            (True, "42"),
            (True, ""),
        ]
        assert [e.artifact_update.last_chunk for e in events[1:-1]] == [False] * 6 + [True]
        assert kinds(events) == ["task", *["artifact_update"] * 7, "status_update"]
        assert events[0].task.status.state == WORKING
        assert not events[0].task.artifacts
        assert events[-1].status_update.status.state == COMPLETED

    async def test_of_a_task_that_ended_before_are_the_task_alone(
        self, sqlite_memory: SQLMemory
    ) -> None:
        agent = agent_of(ScriptedModel("hello"), sqlite_memory)
        async with talking(agent, streams=True) as other:
            await other.say("x", "alice", message_id="m")
            events = [event async for event in other.events("x", "alice", message_id="m")]
        assert kinds(events) == ["task"]
        assert answer(events[0].task) == "hello"

    async def test_tell_characters_that_json_can_t_carry_as_what_they_are_not(
        self, sqlite_memory: SQLMemory
    ) -> None:
        agent = agent_of(ScriptedModel("a\udc80 b\0c"), sqlite_memory)
        async with talking(agent, streams=True) as other:
            task = await other.say("x", "alice")
            assert answer(task) == answer(await other.get(task.id)) == "a\ufffd b\0c"


async def first_task(other: Other) -> Task:
    """Begin a task and leave its stream."""
    async with aclosing(other.events("x", "alice")) as events:  # type: ignore[type-var]
        async for event in events:
            return event.task
    raise AssertionError("nothing was told")


def kinds(events: list[StreamResponse]) -> list[str | None]:
    return [event.WhichOneof("payload") for event in events]
