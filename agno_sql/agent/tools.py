"""Tools: functions that a model may call."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import to_json

from agno_sql.agent.calling import call
from agno_sql.agent.context import RunContext
from agno_sql.errors import InvalidToolError
from agno_sql.ids import shown
from agno_sql.models.chat_model import ToolSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what OpenAI accepts


@dataclass(frozen=True, slots=True)
class Tool:
    """A function as a model sees it; made by ``tool`` or by handing a function to an agent.

    The name is the function's, the description its docstring, the arguments' JSON schema comes
    from its signature (``Annotated[int, Field(description="…")]`` describes one). A parameter
    annotated ``RunContext`` is filled in and hidden from the model. ``idempotent`` says that
    calling it again with the same idempotency key does no harm.
    """

    spec: ToolSpec
    function: Callable[..., Any]
    idempotent: bool = False
    arguments: type[BaseModel] = field(default=BaseModel, repr=False)
    context_parameter: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name a model calls it by, unique within an agent."""
        return self.spec.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function as if it had not been decorated."""
        return self.function(*args, **kwargs)

    async def invoke(self, arguments: str, context: RunContext) -> str:
        """Call the function with *arguments*, a JSON object; return its result as text.

        A string is returned as it is, anything else as JSON.

        Raises:
            InvalidToolArgumentsError: The arguments don't fit the schema; says how.
            Exception: Whatever the function raises.
        """
        try:
            checked = self.arguments.model_validate_json(arguments.strip() or "{}")
        except ValidationError as error:
            raise InvalidToolArgumentsError(_readable(error)) from error
        given = {
            info.alias or name: getattr(checked, name)
            for name, info in type(checked).model_fields.items()
            if name in checked.model_fields_set
        }
        if self.context_parameter is not None:
            given[self.context_parameter] = context
        result = await call(self.function, **given)
        # What ran, ran: a result that is no JSON must not look like a failure.
        return result if isinstance(result, str) else to_json(result, fallback=str).decode()


class InvalidToolArgumentsError(ValueError):
    """A model's arguments don't fit the tool; it reads this and may try again."""


@dataclass(frozen=True, slots=True)
class Toolkit:
    """A named group of tools, handed to an agent as one."""

    name: str
    tools: tuple[Tool, ...]

    def __init__(self, name: str, tools: Iterable[Tool | Callable[..., Any]]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "tools", collect_tools(tools))


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, idempotent: bool = False
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    idempotent: bool = False,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a Tool of a function: ``@tool`` or ``@tool(idempotent=True)``.

    Raises:
        InvalidToolError: Its name or signature can't be offered to a model; says why.
    """
    if function is not None:
        return _make(function, name, idempotent=idempotent)
    return lambda function: _make(function, name, idempotent=idempotent)


def collect_tools(tools: Iterable[Tool | Toolkit | Callable[..., Any]]) -> tuple[Tool, ...]:
    """Return *tools* as a flat tuple, functions made into tools.

    Raises:
        InvalidToolError: Two tools have the same name, or something is no tool.
    """
    collected: dict[str, Tool] = {}
    for given in tools:
        members = given.tools if isinstance(given, Toolkit) else (_as_tool(given),)
        for member in members:
            if member.name in collected:
                raise InvalidToolError(
                    f"two tools are named {member.name!r}; rename one: @tool(name=…)"
                )
            collected[member.name] = member
    return tuple(collected.values())


def _as_tool(given: Tool | Callable[..., Any]) -> Tool:
    return given if isinstance(given, Tool) else _make(given, None, idempotent=False)


def _make(function: Callable[..., Any], name: str | None, *, idempotent: bool) -> Tool:
    if not callable(function) or isinstance(function, type):
        raise InvalidToolError(f"a tool must be a function, got {shown(function)}")
    name = name or str(getattr(function, "__name__", type(function).__name__))
    if not _NAME.fullmatch(name):
        raise InvalidToolError(
            f"a tool's name must be 1 to 64 of a-z, A-Z, 0-9, _ and -, got {shown(name)}; "
            "name it: @tool(name=…)"
        )
    try:
        arguments, context_parameter = _arguments(function)
        schema = arguments.model_json_schema(by_alias=True)
    except (NameError, TypeError, PydanticUserError, PydanticSchemaGenerationError) as error:
        raise InvalidToolError(f"tool {name!r} has no usable signature: {error}") from error
    schema.pop("title", None)
    spec = ToolSpec(name, inspect.getdoc(function) or "", schema)
    return Tool(spec, function, idempotent, arguments, context_parameter)


def _arguments(function: Callable[..., Any]) -> tuple[type[BaseModel], str | None]:
    """Return a model of the function's arguments, and the name of its RunContext parameter."""
    target = function if inspect.isroutine(function) else type(function).__call__
    hints = get_type_hints(target, include_extras=True)
    fields: dict[str, Any] = {}
    context_parameter = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{parameter} can't be given by name")
        annotation = hints.get(parameter.name, Any)
        if annotation is RunContext:
            context_parameter = parameter.name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        # Under names of our own, as the model class has attributes that a parameter may be called.
        fields[f"argument_{len(fields)}"] = (annotation, Field(default, alias=parameter.name))
    model = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
    return model, context_parameter


def _readable(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )
