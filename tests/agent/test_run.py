"""A run: what the model is shown, what is stored, and what comes back."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import Any

import pytest

from agno_sql.agent.agent import Agent
from agno_sql.errors import (
    InvalidInputError,
    InvalidMessageError,
    InvalidOptionError,
    InvalidRunIdError,
    InvalidSessionIdError,
    InvalidUserIdError,
    MaxLoopsError,
    ModelUnavailableError,
)
from agno_sql.ids import valid_run_id
from agno_sql.memory.in_memory import InMemory
from agno_sql.message import Message, Usage
from agno_sql.models.chat_model import ModelReply
from tests.agent.models import (
    ScriptedModel,
    Step,
    agent_of,
    asks,
    call,
    contents,
    refused_by_a_provider,
    roles,
)

BAD_ARGUMENTS = [
    pytest.param({"user_id": ""}, InvalidUserIdError, id="empty user"),
    pytest.param({"user_id": "a\x00"}, InvalidUserIdError, id="user with NUL"),
    pytest.param({"user_id": "x" * 256}, InvalidUserIdError, id="long user"),
    pytest.param({"user_id": 7}, InvalidUserIdError, id="user that is a number"),
    pytest.param({"session_id": ""}, InvalidSessionIdError, id="empty session"),
    pytest.param({"session_id": None}, InvalidSessionIdError, id="no session"),
    pytest.param({"run_id": ""}, InvalidRunIdError, id="empty run"),
    pytest.param({"run_id": "a b"}, InvalidRunIdError, id="run with a blank"),
    pytest.param({"run_id": "r" * 129}, InvalidRunIdError, id="long run"),
    pytest.param({"input": None}, InvalidMessageError, id="no input"),
    pytest.param({"input": b"hello"}, InvalidMessageError, id="input of bytes"),
    pytest.param({"timeout": timedelta(0)}, InvalidOptionError, id="timeout of zero"),
    pytest.param({"timeout": timedelta(seconds=-1)}, InvalidOptionError, id="negative timeout"),
    pytest.param({"timeout": 30}, InvalidOptionError, id="timeout of seconds"),
    pytest.param({"timeout": True}, InvalidOptionError, id="timeout of True"),
]

LOOKS_UP: list[Step] = [asks(call("look_up")), "ok"]


def look_up() -> str:
    """Look it up."""
    return "found"


async def test_a_run_stores_the_question_and_the_answer_and_returns_what_it_stored() -> None:
    memory = InMemory()
    agent = agent_of(ScriptedModel("Hello Alice"), memory)

    output = await agent.run("I am Alice", "alice", session_id="s", run_id="r-1")

    stored = await memory.get_messages("alice", session_id="s")
    assert [(m.role, m.content, m.run_id, m.seq) for m in stored] == [
        ("user", "I am Alice", "r-1", 1),
        ("assistant", "Hello Alice", "r-1", 2),
    ]
    assert output.messages == tuple(stored)
    assert (output.content, output.model) == ("Hello Alice", "scripted-1")
    assert (output.user_id, output.session_id, output.run_id) == ("alice", "s", "r-1")


async def test_the_next_run_shows_the_conversation_so_far() -> None:
    model = ScriptedModel("Hello Alice", "Your name is Alice")
    agent = agent_of(model)
    await agent.run("I am Alice", "alice")
    await agent.run("Who am I?", "alice")
    assert contents(model.shown[1]) == ["I am Alice", "Hello Alice", "Who am I?"]


async def test_each_session_of_a_user_is_a_conversation_of_its_own() -> None:
    model = ScriptedModel(then="ok")
    agent = agent_of(model)
    await agent.run("one", "alice", session_id="first")
    await agent.run("two", "alice", session_id="second")
    await agent.run("three", "alice")
    assert [contents(shown) for shown in model.shown] == [["one"], ["two"], ["three"]]


@pytest.mark.parametrize(
    "of_the_call, of_the_agent, whose",
    [
        ("carol", "bob", "carol"),
        ("carol", None, "carol"),
        (None, "bob", "bob"),
        (None, None, "default"),
    ],
)
async def test_the_user_of_the_call_goes_before_the_agents_and_that_before_the_default(
    of_the_call: str | None, of_the_agent: str | None, whose: str
) -> None:
    memory = InMemory()
    agent = agent_of(ScriptedModel(then="ok"), memory, user_id=of_the_agent)

    output = await agent.run("hi", of_the_call)

    sizes = {user: await memory.size(user) for user in ("carol", "bob", "default")}
    assert sizes == {"carol": 0, "bob": 0, "default": 0} | {whose: 2}
    assert output.user_id == whose
    await agent.clear_memory(of_the_call)
    assert await memory.size(whose) == 0


@pytest.mark.guarantee("G12")
@pytest.mark.parametrize("arguments, error", BAD_ARGUMENTS)
async def test_a_bad_argument_raises_before_the_model_is_asked_and_stores_nothing(
    arguments: dict[str, Any], error: type[InvalidInputError]
) -> None:
    memory, model = InMemory(), ScriptedModel()
    with pytest.raises(error):
        await agent_of(model, memory).run(**{"input": "hi", **arguments})
    assert (model.shown, await memory.size()) == ([], 0)


@pytest.mark.parametrize("arguments, error", BAD_ARGUMENTS)
def test_a_stream_raises_for_a_bad_argument_at_once(
    arguments: dict[str, Any], error: type[InvalidInputError]
) -> None:
    with pytest.raises(error):
        agent_of(ScriptedModel()).stream(**{"input": "hi", **arguments})


@pytest.mark.parametrize(
    "parts, error",
    [
        ({"user_id": ""}, InvalidUserIdError),
        ({"user_id": "a\nb"}, InvalidUserIdError),
        ({"max_loops": 0}, InvalidOptionError),
        ({"max_loops": -1}, InvalidOptionError),
        ({"max_loops": True}, InvalidOptionError),
        ({"max_loops": 1.5}, InvalidOptionError),
        ({"max_loops": None}, InvalidOptionError),
        ({"history_limit": 0}, InvalidOptionError),
        ({"history_limit": "10"}, InvalidOptionError),
    ],
)
def test_an_agent_refuses_parts_out_of_their_bounds(
    parts: dict[str, Any], error: type[InvalidInputError]
) -> None:
    with pytest.raises(error):
        agent_of(ScriptedModel(), **parts)


async def test_clearing_with_an_empty_user_is_an_error_and_not_the_default_user() -> None:
    memory = InMemory()
    agent = agent_of(ScriptedModel("ok"), memory)
    await agent.run("hi")
    with pytest.raises(InvalidUserIdError):
        await agent.clear_memory("")
    assert await memory.size() == 2


async def test_clearing_empties_one_session_of_one_user_and_the_conversation_begins_anew() -> None:
    memory, model = InMemory(), ScriptedModel(then="ok")
    agent = agent_of(model, memory, instructions="Be kind.")
    for user, session in (("alice", "s"), ("alice", "t"), ("bob", "s")):
        await agent.run("hi", user, session_id=session)

    await agent.clear_memory("alice", session_id="s")

    assert await memory.size("alice", session_id="s") == 0
    assert await memory.size("alice", session_id="t") == 2
    assert await memory.size("bob", session_id="s") == 2
    await agent.run("again", "alice", session_id="s")
    assert contents(model.shown[-1]) == ["Be kind.", "again"]


@pytest.mark.guarantee("G21")
async def test_instructions_lead_every_call_of_every_user_once_and_are_never_stored() -> None:
    memory = InMemory()
    model = ScriptedModel(*LOOKS_UP * 4)
    agent = agent_of(model, memory, instructions="Be kind.", tools=[look_up])

    for user in ("alice", "bob", "alice", "bob"):
        await agent.run("hi", user)

    assert len(model.shown) == 8
    for shown in model.shown:
        assert shown[0] == Message.system("Be kind.")
        assert roles(shown).count("system") == 1
    for user in ("alice", "bob"):
        assert "system" not in roles(await memory.get_messages(user))


async def test_instructions_are_shown_in_their_newest_form_only() -> None:
    memory, model = InMemory(), ScriptedModel(then="ok")
    await agent_of(model, memory, instructions="Be kind.").run("one", "alice")
    await agent_of(model, memory, instructions="Be brief.").run("two", "alice")
    await agent_of(model, memory).run("three", "alice")
    assert contents(model.shown[1]) == ["Be brief.", "one", "ok", "two"]
    assert contents(model.shown[2]) == ["one", "ok", "two", "ok", "three"]


async def test_instructions_stand_before_system_messages_that_a_user_stored() -> None:
    memory, model = InMemory(), ScriptedModel(then="ok")
    await memory.add(Message.system("Alice is blind."), "alice")
    await agent_of(model, memory, instructions="Be kind.").run("hi", "alice")
    assert contents(model.shown[0]) == ["Be kind.", "Alice is blind.", "hi"]


async def test_the_usage_of_all_model_calls_is_summed() -> None:
    model = ScriptedModel(
        asks(call("look_up"), usage=Usage(10, 1)),
        asks(call("look_up"), usage=Usage(20, 2)),
        ModelReply("ok", usage=Usage(400, 5)),
    )
    output = await agent_of(model, tools=[look_up]).run("hi")
    assert (output.usage, output.usage.total_tokens) == (Usage(430, 8), 438)


async def test_a_run_without_a_name_gets_one_of_its_own_that_all_its_messages_carry() -> None:
    memory = InMemory()
    model = ScriptedModel(*LOOKS_UP * 2)
    agent = agent_of(model, memory, tools=[look_up])
    first, second = await agent.run("one"), await agent.run("two")
    assert first.run_id != second.run_id
    assert valid_run_id(first.run_id)
    stored = await memory.get_messages()
    assert [m.run_id for m in stored] == [first.run_id] * 4 + [second.run_id] * 4


async def test_what_is_added_by_hand_is_shown_and_keeps_no_run() -> None:
    memory, model = InMemory(), ScriptedModel(then="ok")
    await memory.add(Message.user("by hand"), "alice")
    output = await agent_of(model, memory).run("hi", "alice")
    assert contents(model.shown[0]) == ["by hand", "hi"]
    assert contents(output.messages) == ["hi", "ok"]


@pytest.mark.parametrize("text", ["", " ", "a\x00b", "\ud800 alone", "日本語 🙂"])
async def test_any_text_is_a_legal_question_and_a_legal_answer(text: str) -> None:
    memory = InMemory()
    output = await agent_of(ScriptedModel(text), memory).run(text, "alice")
    assert output.content == text
    assert contents(await memory.get_messages("alice")) == [text, text]


async def test_a_model_error_is_raised_as_it_is_and_the_conversation_goes_on() -> None:
    memory = InMemory()
    error = ModelUnavailableError("down")
    model = ScriptedModel(error, "back again")
    agent = agent_of(model, memory)

    with pytest.raises(ModelUnavailableError) as caught:
        await agent.run("one", "alice")
    await agent.run("two", "alice")

    assert caught.value is error
    assert contents(model.shown[1]) == ["one", "two"]
    assert contents(await memory.get_messages("alice")) == ["one", "two", "back again"]


async def test_a_model_may_be_called_ten_times_before_the_run_gives_up_with_what_it_has() -> None:
    memory = InMemory()
    called: list[None] = []

    def count() -> int:
        called.append(None)
        return len(called)

    model = ScriptedModel(then=asks(call("count"), text="still at it", usage=Usage(2, 1)))
    agent = agent_of(model, memory, tools=[count])

    with pytest.raises(MaxLoopsError) as caught:
        await agent.run("go", "alice", run_id="r-1")

    output = caught.value.output
    stored = await memory.get_messages("alice")
    assert len(model.shown) == 10
    assert len(called) == 9, "calls of the last reply are not executed: nobody would read them"
    assert output.messages == tuple(stored)
    assert roles(stored) == ["user"] + ["assistant", "tool"] * 9
    assert (output.content, output.run_id) == ("still at it", "r-1")
    assert output.usage == Usage(20, 10)
    assert await refused_by_a_provider(memory, "alice") is None


async def test_an_answer_in_the_last_allowed_call_is_no_failure() -> None:
    model = ScriptedModel(asks(call("look_up")), asks(call("look_up")), "just in time")
    output = await agent_of(model, max_loops=3, tools=[look_up]).run("go")
    assert output.content == "just in time"


async def test_one_loop_allows_an_answer_but_no_tool() -> None:
    memory = InMemory()
    model = ScriptedModel(asks(call("look_up")), "ok")
    agent = agent_of(model, memory, max_loops=1, tools=[look_up])
    with pytest.raises(MaxLoopsError):
        await agent.run("one")
    assert (await agent.run("two")).content == "ok"
    assert contents(await memory.get_messages()) == ["one", "two", "ok"]


async def test_text_beside_tool_calls_is_kept_and_shown_again() -> None:
    memory = InMemory()
    model = ScriptedModel(asks(call("look_up"), text="Let me see."), "ok")
    output = await agent_of(model, memory, tools=[look_up]).run("hi")
    assert contents(output.messages) == ["hi", "Let me see.", "found", "ok"]
    assert contents(model.shown[1]) == ["hi", "Let me see.", "found"]


@pytest.mark.parametrize("part", [field for field in Agent.__slots__ if field != "__weakref__"])
def test_no_part_of_an_agent_can_be_changed(part: str) -> None:
    agent = agent_of(ScriptedModel())
    with pytest.raises(FrozenInstanceError):
        setattr(agent, part, None)
    with pytest.raises(FrozenInstanceError):
        delattr(agent, part)


async def test_an_agent_does_not_see_later_changes_of_the_lists_it_was_made_of() -> None:
    tools, hooks = [look_up], [lambda _: None]
    model = ScriptedModel("ok")
    agent = agent_of(model, tools=tools, pre_hooks=hooks, post_hooks=hooks)
    tools.clear()
    hooks.append(lambda _: pytest.fail("not a hook of this agent"))
    await agent.run("hi")
    assert [spec.name for spec in model.offered[0]] == ["look_up"]


def test_an_agent_is_called_by_its_name_unless_it_has_an_id() -> None:
    assert agent_of(ScriptedModel()).id == "tester"
    assert agent_of(ScriptedModel(), id="a-1").id == "a-1"
