"""Tools: functions that a model may call."""

from __future__ import annotations

import inspect
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    NoReturn,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
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
    calling it again with the same idempotency key does no harm; whoever repeats calls reads it.
    """

    spec: ToolSpec
    function: Callable[..., Any]
    idempotent: bool = False
    arguments: type[BaseModel] = field(default=BaseModel, repr=False)
    context_parameters: tuple[str, ...] = field(default=(), repr=False)

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
        given |= dict.fromkeys(self.context_parameters, context)
        return _as_text(await call(self.function, **given))


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
    inner = _inner(function)
    name = name or str(getattr(inner, "__name__", type(inner).__name__))
    if not _NAME.fullmatch(name):
        raise InvalidToolError(
            f"a tool's name must be 1 to 64 of a-z, A-Z, 0-9, _ and -, got {shown(name)}; "
            "name it: @tool(name=…)"
        )
    try:
        arguments, context_parameters = _arguments(function, inner)
        schema = arguments.model_json_schema(by_alias=True)
    except Exception as error:  # annotations and pydantic fail in every way there is
        raise InvalidToolError(f"tool {name!r} has no usable signature: {error}") from error
    schema.pop("title", None)
    spec = ToolSpec(name, inspect.getdoc(inner) or "", schema)
    return Tool(spec, function, idempotent, arguments, context_parameters)


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a partial is made of: it has the name, docstring and types."""
    while isinstance(function, partial):
        function = function.func
    return function


def _arguments(
    function: Callable[..., Any], inner: Callable[..., Any]
) -> tuple[type[BaseModel], tuple[str, ...]]:
    """Return a model of the function's arguments, and the names of its RunContext parameters."""
    target = inner if inspect.isroutine(inner) else type(inner).__call__
    hints = get_type_hints(target, include_extras=True)
    fields: dict[str, Any] = {}
    context_parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{parameter} can't be given by name")
        annotation = hints.get(parameter.name, Any)
        if _is_context(annotation):
            context_parameters.append(parameter.name)
        else:
            # Under names of our own: a model class has attributes that a parameter may be called.
            fields[f"argument_{len(fields)}"] = (annotation, _field(parameter))
    model = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
    return model, tuple(context_parameters)


def _is_context(annotation: Any) -> bool:
    """Tell whether a parameter is a RunContext, perhaps an optional or annotated one.

    Raises:
        TypeError: It holds one in another way, so that a model could make up whom it serves.
    """
    if annotation is RunContext:
        return True
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _is_context(parts[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [part for part in parts if part is not type(None)]
        return any(map(_is_context, rest)) and (len(rest) == 1 or _refuse(annotation))
    if any(map(_is_context, parts)):
        _refuse(annotation)
    return False


def _refuse(annotation: Any) -> NoReturn:
    raise TypeError(f"a RunContext must stand alone, not in {annotation}")


def _field(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    if default is parameter.empty:
        return Field(alias=parameter.name)
    if default is None or isinstance(default, str | int | float):
        return Field(default, alias=parameter.name)
    # Only says that the parameter may be left out: what was not given is not passed on.
    return Field(default_factory=lambda: default, alias=parameter.name)


def _as_text(result: Any) -> str:
    """Return *result* as a model reads it. What ran, ran: it must never look like a failure."""
    if isinstance(result, str):
        return result
    with suppress(Exception):
        return to_json(result, fallback=str).decode()
    with suppress(Exception):
        return str(result)
    return f"a {type(result).__name__}"


def _readable(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )
