"""What a tool is given, and what the model reads of how it went."""

import asyncio
import json
import threading
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import wraps
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from agno_sql.agent.context import RunContext
from agno_sql.agent.tools import tool
from agno_sql.errors import BadReplyError
from agno_sql.memory.in_memory import InMemory
from agno_sql.message import ToolCall
from agno_sql.models.chat_model import ModelReply
from tests.agent.models import (
    ScriptedModel,
    agent_of,
    asks,
    call,
    contents,
    refused_by_a_provider,
)

TENANT: ContextVar[str] = ContextVar("TENANT")


@dataclass
class Parcel:
    city: str
    grams: int


class Order(BaseModel):
    number: int
    placed: date


class Color(Enum):
    RED = "red"


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no words for it")

    __repr__ = __str__


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words for it")


class UntamedError(BaseException):
    """Not an Exception, as a panic of a Rust extension is none."""


def circle() -> list[Any]:
    around: list[Any] = []
    around.append(around)
    return around


async def text_of(function: Callable[..., Any], arguments: str = "{}") -> str:
    """Return what the model reads when it calls *function*; it is what is stored, too."""
    memory = InMemory()
    tested = tool(name="tested")(function)
    model = ScriptedModel(asks(ToolCall("call_1", "tested", arguments)), "done")
    output = await agent_of(model, memory, tools=[tested]).run("go", "alice")
    assert output.content == "done"
    (shown,) = contents(model.shown[1], "tool")
    assert contents(await memory.get_messages("alice"), "tool") == [shown]
    return shown


def both_ways(function: Callable[[], Any]) -> list[Callable[[], Any]]:
    """Return *function* as a plain and as an async one."""

    async def awaited() -> Any:
        return function()

    return [function, awaited]


@pytest.mark.guarantee("G24")
@pytest.mark.parametrize(
    "result, text",
    [
        ("plain text", "plain text"),
        ("", ""),
        ("a\x00b\ud800c", "a\x00b\ud800c"),
        (None, "null"),
        (True, "true"),
        (7, "7"),
        ({"a": 1, "ü": [1.5, None]}, '{"a":1,"ü":[1.5,null]}'),
        ((1, "x"), '[1,"x"]'),
        (Parcel("Rome", 5), '{"city":"Rome","grams":5}'),
        (
            Order(number=5, placed=date(2026, 3, 1)),
            '{"number":5,"placed":"2026-03-01"}',
        ),
        ([Parcel("Rome", 5)], '[{"city":"Rome","grams":5}]'),
        (Color.RED, '"red"'),
        (Decimal("1.10"), '"1.10"'),
        (datetime(2026, 3, 1, tzinfo=UTC), '"2026-03-01T00:00:00Z"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (b"bytes", '"bytes"'),
    ],
)
async def test_a_result_is_text_or_json(result: object, text: str) -> None:
    for function in both_ways(lambda: result):
        assert await text_of(function) == text


@pytest.mark.guarantee("G24")
@pytest.mark.parametrize(
    "result",
    [
        pytest.param(object(), id="object"),
        pytest.param({"a": object()}, id="object inside"),
        pytest.param({"stuck": "\ud800"}, id="surrogate inside"),
        pytest.param(b"\xff\xfe", id="bytes that are no text"),
        pytest.param(float("nan"), id="NaN"),
        pytest.param({1: "a", (2, 3): "b"}, id="keys that are no strings"),
        pytest.param(circle(), id="a list that holds itself"),
        pytest.param(Unprintable(), id="an object without words"),
        pytest.param(ValueError("returned, not raised"), id="an error that was returned"),
    ],
)
async def test_a_result_that_is_no_json_does_not_look_like_a_failure(result: object) -> None:
    text = await text_of(lambda: result)
    assert text
    assert "Error:" not in text, "the model would call again what has run already"


class TestArguments:
    """A tool is called only with arguments that fit; the model reads what is wrong with others."""

    @pytest.mark.guarantee("G24")
    @pytest.mark.parametrize(
        "arguments, told",
        [
            ("", ["city"]),
            ("  ", ["city"]),
            ("{}", ["city"]),
            ("not json", ["JSON"]),
            ('{"city": "Rome"', ["JSON"]),
            ('{"city": "Rome"} and more', ["JSON"]),
            ("[]", ["object"]),
            ("null", ["object"]),
            ('"Rome"', ["object"]),
            ('{"city": null}', ["city"]),
            ('{"city": ["Rome"]}', ["city"]),
            ('{"city": "Rome", "days": "many"}', ["days"]),
            ('{"city": "Rome", "days": 2.5}', ["days"]),
            ('{"city": "Rome", "days": 0}', ["days", "greater than or equal to 1"]),
            ('{"city": "Rome", "planet": "Mars"}', ["planet"]),
            ('{"town": "Rome", "days": "x"}', ["city", "days", "town"]),
            ('{"city": "Rome", "context": {"user_id": "bob"}}', ["context"]),
            ('{"argument_0": "Rome"}', ["city"]),
            ('{"city": "\ud800"}', []),
            ('{"city": "\\ud800"}', []),
            ("[" * 100_000, []),
            ("9" * 10_000, []),
        ],
    )
    async def test_arguments_that_do_not_fit_are_told_to_the_model_and_the_tool_is_not_called(
        self, arguments: str, told: list[str]
    ) -> None:
        def forecast(city: str, context: RunContext, days: Annotated[int, Field(ge=1)] = 1) -> str:
            pytest.fail("called")

        text = await text_of(forecast, arguments)
        assert "Error" in text
        for word in told:
            assert word in text

    async def test_arguments_arrive_as_the_types_of_the_signature(self) -> None:
        def ship(order: Order, color: Color, parcels: list[Parcel], *, on: date) -> str:
            assert isinstance(order, Order)
            assert (color, on) == (Color.RED, date(2026, 3, 2))
            assert parcels == [Parcel("Rome", 5)]
            return f"order {order.number} of {order.placed:%Y}"

        arguments = {
            "order": {"number": 5, "placed": "2026-03-01"},
            "color": "red",
            "parcels": [{"city": "Rome", "grams": 5}],
            "on": "2026-03-02",
        }
        assert await text_of(ship, json.dumps(arguments)) == "order 5 of 2026"

    @pytest.mark.parametrize("arguments", ["", " ", "{}", " {} \n"])
    async def test_no_arguments_are_legal_where_none_are_needed(self, arguments: str) -> None:
        def ring(times: int = 3) -> str:
            return "ding" * times

        assert await text_of(ring, arguments) == "dingdingding"

    async def test_a_parameter_without_annotation_takes_any_json(self) -> None:
        def echo(thing):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            return thing

        assert await text_of(echo, '{"thing": {"a": [1, null]}}') == '{"a":[1,null]}'

    @pytest.mark.parametrize(
        "name",
        [
            "function",
            "args",
            "kwargs",
            "self",
            "cls",
            "model_config",
            "json",
            "copy",
            "schema",
            "arguments",
            "context",
            "func",
            "_private",
            "__base__",
            "argument_1",
        ],
    )
    async def test_a_parameter_may_have_any_name(self, name: str) -> None:
        namespace: dict[str, Any] = {}
        exec(f"def named({name}: int, more: int = 1): return {name} + more", namespace)  # noqa: S102
        assert await text_of(namespace["named"], json.dumps({name: 41})) == "42"


class TestFailures:
    """Whatever a tool raises, the run goes on and the model reads what happened."""

    @pytest.mark.guarantee("G24")
    @pytest.mark.parametrize(
        "error, text",
        [
            (ValueError("no such order"), "ValueError: no such order"),
            (KeyError("x"), "KeyError: 'x'"),
            (ValueError(), "ValueError"),
            (ValueError("nul \x00, alone \ud800"), "ValueError: nul \x00, alone \ud800"),
            (TimeoutError("too slow"), "TimeoutError: too slow"),
            (StopAsyncIteration("over"), "StopAsyncIteration: over"),
            (asyncio.CancelledError("by the tool"), "CancelledError: by the tool"),
            (ExceptionGroup("both", [ValueError("one")]), "ExceptionGroup: both (1 sub-exception)"),
        ],
    )
    async def test_an_error_becomes_its_type_and_message(
        self, error: BaseException, text: str
    ) -> None:
        def fail() -> None:
            raise error

        for function in both_ways(fail):
            assert await text_of(function) == text

    async def test_a_stop_iteration_does_not_hang_the_run(self) -> None:
        async with asyncio.timeout(10):
            for function in both_ways(lambda: next(iter([]))):
                assert "StopIteration" in await text_of(function)

    async def test_an_error_without_words_is_told_by_its_type(self) -> None:
        def fail() -> None:
            raise UnprintableError

        for function in both_ways(fail):
            assert "UnprintableError" in await text_of(function)

    @pytest.mark.guarantee("G24")
    async def test_an_error_beyond_exception_does_not_end_the_run(self) -> None:
        def fail() -> None:
            raise UntamedError("panic")

        for function in both_ways(fail):
            assert await text_of(function) == "UntamedError: panic"

    @pytest.mark.guarantee("G24")
    @pytest.mark.parametrize("way", [0, 1], ids=["plain", "async"])
    def test_a_tool_that_exits_does_not_take_the_process_with_it(self, way: int) -> None:
        def leave() -> None:
            raise SystemExit(2)  # as argparse does for bad arguments

        try:
            text = asyncio.run(text_of(both_ways(leave)[way]))
        except SystemExit:
            pytest.fail("the event loop of all runs was ended by one tool")
        assert text == "SystemExit: 2"

    async def test_a_result_of_many_pages_arrives_whole(self) -> None:
        assert await text_of(lambda: "x" * 1_000_000) == "x" * 1_000_000

    @pytest.mark.guarantee("G24")
    @pytest.mark.parametrize("name", ["nope", "look up", "", "\x00", "ü" * 100])
    async def test_an_unknown_tool_is_told_with_the_names_of_those_there_are(
        self, name: str
    ) -> None:
        memory = InMemory()
        wanted = ToolCall("call_1", name or "-", "{}")
        model = ScriptedModel(asks(wanted), "done")
        tools = [tool(name=known)(lambda: "x") for known in ("look_up", "ring")]
        await agent_of(model, memory, tools=tools).run("go", "alice")
        (text,) = contents(model.shown[1], "tool")
        assert "look_up" in text
        assert "ring" in text
        assert await refused_by_a_provider(memory, "alice") is None

    async def test_a_call_to_an_agent_without_tools_is_answered_too(self) -> None:
        model = ScriptedModel(asks(call("look_up")), "done")
        assert (await agent_of(model).run("go")).content == "done"
        assert "look_up" in contents(model.shown[1], "tool")[0]


class TestWhereToolsRun:
    """Plain tools run in threads, async ones on the loop, both in the context of the caller."""

    async def test_a_plain_tool_runs_off_the_loop_and_an_async_one_on_it(self) -> None:
        async def on_the_loop() -> int:
            return threading.get_ident()

        assert await text_of(on_the_loop) == str(threading.get_ident())
        assert await text_of(lambda: [threading.get_ident()]) != f"[{threading.get_ident()}]"

    async def test_tools_see_the_context_variables_of_whoever_runs_the_agent(self) -> None:
        TENANT.set("alice")
        for function in both_ways(lambda: [TENANT.get()]):
            assert await text_of(function) == '["alice"]'

    async def test_a_plain_wrapper_of_an_async_tool_is_awaited(self) -> None:
        async def greet(name: str) -> str:
            await asyncio.sleep(0)
            return f"hello {name}"

        @wraps(greet)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return greet(*args, **kwargs)

        assert await text_of(wrapper, '{"name": "Alice"}') == "hello Alice"

    async def test_bound_methods_and_callable_objects_are_tools(self) -> None:
        class Greeter:
            def __init__(self, greeting: str) -> None:
                self._greeting = greeting

            def greet(self, name: str) -> str:
                return f"{self._greeting} {name}"

            async def __call__(self, name: str) -> str:
                return f"{self._greeting}, dear {name}"

        greeter = Greeter("hello")
        assert await text_of(greeter.greet, '{"name": "Alice"}') == "hello Alice"
        assert await text_of(greeter, '{"name": "Alice"}') == "hello, dear Alice"
        assert "name" in await text_of(greeter.greet, '{"name": 5}')


async def test_a_tool_that_cancels_its_own_task_does_not_cancel_the_run() -> None:
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    model = ScriptedModel(asks(call("give_up")), "went on")
    output = await agent_of(model, tools=[give_up]).run("go", "alice")
    assert output.content == "went on"
    assert contents(model.shown[-1])[-1] == "CancelledError"


@pytest.mark.parametrize("parts", [("", ("x",)), (5, ()), (None, ())])
def test_a_reply_that_is_none_is_a_bad_reply(parts: Any) -> None:
    with pytest.raises(BadReplyError):
        ModelReply(*parts)
