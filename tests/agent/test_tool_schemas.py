"""What a model is told about a tool, and which functions can be none."""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from agno_sql.agent.context import RunContext
from agno_sql.agent.tools import Tool, Toolkit, tool
from agno_sql.errors import InvalidToolError
from agno_sql.memory.in_memory import InMemory
from agno_sql.message import ToolCall
from tests.agent.models import ScriptedModel, agent_of, asks, call, contents

UNSET = object()


class Address(BaseModel):
    """Where to."""

    city: str


def look_up(
    order: Annotated[int, Field(description="The order's number.", ge=1)],
    language: Literal["de", "en"] = "en",
    note: str | None = None,
) -> str:
    """Look an order up.

    Tells where it is.
    """
    return f"order {order} ({language}, {note})"


def schema_of(function: Callable[..., Any]) -> Any:
    """Return the parameters as the model is told them."""
    return tool(name="tested")(function).spec.parameters


async def test_the_model_is_offered_name_description_and_schema_in_every_call() -> None:
    model = ScriptedModel(asks(call("look_up", order=7)), "done")
    await agent_of(model, tools=[look_up]).run("go")

    assert model.offered[0] == model.offered[1]
    (spec,) = model.offered[0]
    assert (spec.name, spec.description) == (
        "look_up",
        "Look an order up.\n\nTells where it is.",
    )
    assert spec.parameters["type"] == "object"
    assert spec.parameters["required"] == ["order"]
    assert spec.parameters["additionalProperties"] is False
    properties = spec.parameters["properties"]
    assert list(properties) == ["order", "language", "note"]
    assert properties["order"]["description"] == "The order's number."
    assert (properties["order"]["type"], properties["order"]["minimum"]) == ("integer", 1)
    assert properties["language"]["enum"] == ["de", "en"]
    assert (properties["language"]["default"], properties["note"]["default"]) == ("en", None)
    assert contents(model.shown[1], "tool") == ["order 7 (en, None)"]


async def test_an_agent_without_tools_offers_none() -> None:
    model = ScriptedModel("done")
    await agent_of(model).run("go")
    assert model.offered == [[]]


def test_nested_models_are_described() -> None:
    def ship(to: list[Address]) -> None: ...

    schema = schema_of(ship)
    assert schema["properties"]["to"]["type"] == "array"
    assert schema["$defs"]["Address"]["properties"]["city"] == {"title": "City", "type": "string"}


def test_a_function_without_parameters_and_docstring_is_a_tool() -> None:
    def ring(): ...  # type: ignore[no-untyped-def]  # noqa: ANN202

    spec = tool(ring).spec
    assert (spec.name, spec.description) == ("ring", "")
    assert (spec.parameters["type"], spec.parameters["properties"]) == ("object", {})


async def test_a_default_is_the_functions_own_object_and_need_not_be_json() -> None:
    def wait(until: Any = UNSET, seconds: float = math.inf) -> str:
        return f"{until is UNSET}, {seconds}"

    model = ScriptedModel(asks(call("wait")), "done")
    await agent_of(model, tools=[wait]).run("go")
    assert contents(model.shown[1], "tool") == ["True, inf"]


class TestRunContext:
    """A tool's RunContext is filled in by the run; a model neither sees nor sets it."""

    async def test_it_is_hidden_and_names_the_run(self) -> None:
        def whoami(before: int, context: RunContext, after: int = 2) -> list[Any]:
            return [before, after, context.user_id, context.session_id, context.run_id]

        assert list(schema_of(whoami)["properties"]) == ["before", "after"]
        model = ScriptedModel(asks(call("whoami", before=1)), "done")
        agent = agent_of(model, tools=[whoami])
        await agent.run("go", "alice", session_id="s", run_id="r-1")
        assert contents(model.shown[1], "tool") == ['[1,2,"alice","s","r-1"]']

    async def test_it_carries_the_providers_call_id(self) -> None:
        async def which(*, context: RunContext) -> str:
            return context.tool_call_id

        model = ScriptedModel(asks(call("which", "call_x"), call("which", "call_y")), "done")
        await agent_of(model, tools=[which]).run("go")
        assert contents(model.shown[1], "tool") == ["call_x", "call_y"]

    async def test_a_model_that_forges_it_is_refused(self) -> None:
        def whoami(context: RunContext) -> str:
            pytest.fail(f"called as {context.user_id}")

        forged = call("whoami", context={"user_id": "bob"})
        model = ScriptedModel(asks(forged), "done")
        await agent_of(model, tools=[whoami]).run("go", "alice")
        assert "context" in contents(model.shown[1], "tool")[0]

    @staticmethod
    def disguised() -> list[Any]:
        def optional(context: RunContext | None = None) -> str:
            return context.user_id if context else "nobody"

        def optional_of_old(context: Optional[RunContext] = None) -> str:  # noqa: UP045
            return context.user_id if context else "nobody"

        def annotated(context: Annotated[RunContext, "filled in"]) -> str:
            return context.user_id

        def plain(greeting: str, context: RunContext) -> str:
            return f"{greeting}{context.user_id}"

        partial = functools.partial(plain, "")
        return [
            pytest.param(function, id=name)
            for name, function in {
                "optional": optional,
                "Optional": optional_of_old,
                "annotated": annotated,
                "partial": partial,
            }.items()
        ]

    @pytest.mark.parametrize("function", disguised())
    async def test_in_any_disguise_it_is_never_the_models_to_set(
        self, function: Callable[..., Any]
    ) -> None:
        forged = {
            "user_id": "bob",
            "session_id": "s",
            "run_id": "r",
            "tool_call_id": "c",
            "idempotency_key": "k",
        }
        try:
            whoami = tool(name="whoami")(function)
        except InvalidToolError:
            return  # refusing such a tool is as good
        assert "context" not in whoami.spec.parameters["properties"]
        model = ScriptedModel(asks(call("whoami", context=forged)), asks(call("whoami")), "done")
        await agent_of(model, tools=[whoami]).run("go", "alice")
        told = contents(model.shown[2], "tool")
        assert "bob" not in told
        assert told[1] == "alice"

    async def test_two_of_them_are_both_filled_in_or_refused(self) -> None:
        def twice(first: RunContext, second: RunContext) -> str:
            return f"{first.user_id} {second.user_id}"

        try:
            made = tool(twice)
        except InvalidToolError:
            return
        model = ScriptedModel(asks(call("twice")), "done")
        await agent_of(model, tools=[made]).run("go", "alice")
        assert contents(model.shown[1], "tool") == ["alice alice"]


class TestDecorator:
    """``@tool`` with and without options."""

    def test_a_decorated_function_can_still_be_called(self) -> None:
        decorated = tool(look_up)
        assert decorated(7, language="de") == look_up(7, language="de")

    def test_a_tool_may_have_another_name_and_be_idempotent(self) -> None:
        @tool(name="find-order", idempotent=True)
        def look_up() -> None: ...

        assert (look_up.name, look_up.idempotent) == ("find-order", True)
        assert tool(lambda: None, name="plain").idempotent is False  # type: ignore[call-overload]

    def test_a_lambda_is_a_tool_once_it_has_a_name(self) -> None:
        assert isinstance(tool(name="ring")(lambda: "ding"), Tool)


def positional(x: int, /) -> None: ...


def many(*args: int) -> None: ...


def anything(**kwargs: int) -> None: ...


def unknown_annotation(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def wrong_attribute(x: "math.nowhere") -> None: ...  # type: ignore[name-defined]


def broken_annotation(x: "not a type") -> None: ...  # type: ignore[valid-type]  # noqa: F722


def no_schema(x: Callable[[int], int]) -> None: ...


def no_pydantic_type(x: ScriptedModel) -> None: ...


def broken_pattern(x: Annotated[str, Field(pattern="(")]) -> None: ...


def long_name() -> None: ...


long_name.__name__ = "x" * 65


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(lambda: None, id="a lambda without a name"),
        pytest.param(ScriptedModel, id="a class"),
        pytest.param(dict, id="a builtin class"),
        pytest.param("look_up", id="a string"),
        pytest.param(None, id="None"),
        pytest.param(ScriptedModel(), id="an object that can't be called"),
        pytest.param(print, id="a builtin with *args"),
        pytest.param(max, id="a builtin without a signature"),
        positional,
        many,
        anything,
        unknown_annotation,
        wrong_attribute,
        broken_annotation,
        no_schema,
        no_pydantic_type,
        broken_pattern,
        long_name,
    ],
)
def test_what_cannot_be_offered_to_a_model_is_refused_when_the_agent_is_made(bad: Any) -> None:
    with pytest.raises(InvalidToolError):
        agent_of(ScriptedModel(), tools=[bad])


@pytest.mark.parametrize("name", ["look up", "ü", "a.b", "x" * 65, "name\n", "<lambda>"])
def test_a_name_that_providers_refuse_is_refused(name: str) -> None:
    with pytest.raises(InvalidToolError):
        tool(name=name)(look_up)


class TestToolkit:
    """A toolkit is a group of tools; names are unique in the whole agent."""

    async def test_its_tools_are_offered_beside_others(self) -> None:
        kit = Toolkit("orders", [look_up, tool(name="cancel")(lambda: "cancelled")])
        model = ScriptedModel(asks(call("cancel")), "done")
        await agent_of(model, tools=[tool(name="ring")(lambda: "ding"), kit]).run("go")
        assert [spec.name for spec in model.offered[0]] == ["ring", "look_up", "cancel"]
        assert contents(model.shown[1], "tool") == ["cancelled"]

    @pytest.mark.parametrize(
        "tools",
        [
            lambda: [look_up, look_up],
            lambda: [look_up, tool(look_up)],
            lambda: [look_up, Toolkit("a", [look_up])],
            lambda: [Toolkit("a", [look_up]), Toolkit("b", [look_up])],
            lambda: [Toolkit("a", [look_up, tool(name="look_up")(lambda: "")])],
        ],
    )
    def test_two_tools_of_one_name_are_an_error_that_names_them(
        self, tools: Callable[[], list[Any]]
    ) -> None:
        with pytest.raises(InvalidToolError, match="look_up"):
            agent_of(ScriptedModel(), InMemory(), tools=tools())

    def test_an_empty_one_is_legal_and_offers_nothing(self) -> None:
        assert agent_of(ScriptedModel(), tools=[Toolkit("empty", [])]).tools == ()

    def test_it_cannot_be_changed(self) -> None:
        kit = Toolkit("orders", [look_up])
        with pytest.raises(AttributeError):
            kit.tools = ()  # type: ignore[misc]


async def test_a_partial_keeps_the_schema_of_its_function() -> None:
    def look_up_in(database: dict[int, str], order: int) -> str:
        """Look it up."""
        return database[order]

    bound = tool(name="look_up")(functools.partial(look_up_in, {7: "seven"}))
    model = ScriptedModel(
        asks(call("look_up", order=7), ToolCall("call_2", "look_up", '{"order": "x"}')), "done"
    )
    await agent_of(model, tools=[bound]).run("go")
    right, wrong = contents(model.shown[1], "tool")
    assert right == "seven"
    assert "integer" in wrong
    assert bound.spec.parameters["properties"]["order"]["type"] == "integer"
    assert bound.spec.description == "Look it up."
