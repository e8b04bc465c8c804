"""Chat Completions on the wire: our records to its JSON and back."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from agno_sql.errors import BadReplyError, ContentFilterError
from agno_sql.ids import shown
from agno_sql.message import ToolCall, Usage, encodable
from agno_sql.models.chat_model import ModelReply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agno_sql.message import Message
    from agno_sql.models.chat_model import ToolSpec

_NOT_IN_SPEAKER: Final = re.compile(r"[\s<|\\/>]")
_NOT_IN_TOOL_NAME: Final = re.compile("[^a-zA-Z0-9_-]")
_MAX_NAME_CHARACTERS: Final = 64


class Draft:
    """A streamed message as far as it has come; has the fields of a whole one."""

    def __init__(self) -> None:
        self.content = ""
        self.refusal = ""
        self._calls: dict[int, CallDraft] = {}
        self.finish_reason: str | None = None
        self.usage: Any = None

    def add(self, chunk: Any) -> str:
        """Take *chunk* in and return its piece of the text."""
        self.usage = chunk.usage or self.usage
        if not chunk.choices:  # the last chunk, which brings the usage
            return ""
        choice = chunk.choices[0]
        self.finish_reason = choice.finish_reason or self.finish_reason
        if choice.delta is None:
            return ""
        for part in choice.delta.tool_calls or ():
            # Some compatible servers send calls whole and do not number them.
            index = len(self._calls) if part.index is None else part.index
            self._calls.setdefault(index, CallDraft()).add(part)
        self.refusal += choice.delta.refusal or ""
        piece = choice.delta.content or ""
        self.content += piece
        return piece

    @property
    def tool_calls(self) -> list[CallDraft]:
        """The calls so far, in the provider's order."""
        return [call for _, call in sorted(self._calls.items())]


class CallDraft:
    """A streamed tool call as far as it has come; has the fields of a whole one."""

    type = "function"

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = ""

    @property
    def function(self) -> CallDraft:
        """Name and arguments stand here."""
        return self

    def add(self, part: Any) -> None:
        """Take a piece of the call in."""
        self.id = self.id or part.id or ""
        if part.function is not None:
            self.name = self.name or part.function.name or ""
            self.arguments += part.function.arguments or ""


def read_reply(model: str, finish_reason: str | None, message: Any, usage: Any) -> ModelReply:
    """Return what a whole message says.

    Raises:
        ContentFilterError: The provider's filter stopped it.
    """
    if finish_reason == "content_filter":
        raise ContentFilterError(f"model {model!r}: the provider's filter stopped the reply")
    content = message.content or message.refusal or ""
    if not isinstance(content, str):
        raise TypeError("content is no string")
    calls = [call for call in message.tool_calls or () if call.type in {None, "function"}]
    tokens = Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else Usage()
    return ModelReply(content, tuple(_tool_call(call) for call in calls), tokens)


def _tool_call(call: Any) -> ToolCall:
    # Some compatible servers give no id, without which no result can be told from another.
    call_id = call.id or f"call_{uuid4().hex}"
    return ToolCall(call_id, call.function.name, call.function.arguments or "")


@contextmanager
def reading(model: str, answer: object) -> Iterator[None]:
    """Raise BadReplyError where *answer* is not what the API promises."""
    # openai hands out whatever came, unchecked, in the guise of its own types.
    try:
        yield
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        told = shown(str(getattr(answer, "error", None) or answer))
        raise BadReplyError(f"model {model!r}: not a usable reply ({error}): {told}") from error


def wire_message(message: Message) -> dict[str, Any]:
    """Return *message* as the API takes it; what it would refuse in a name is replaced."""
    wire: dict[str, Any] = {"role": message.role, "content": encodable(message.content)}
    if message.role == "tool":
        return wire | {"tool_call_id": encodable(message.tool_call_id or "")}
    if message.name:
        # One name that OpenAI refuses would make the whole conversation impossible to continue.
        wire["name"] = _NOT_IN_SPEAKER.sub("_", encodable(message.name))[:_MAX_NAME_CHARACTERS]
    if message.tool_calls:
        wire["content"] = wire["content"] or None
        wire["tool_calls"] = [_wire_call(call) for call in message.tool_calls]
    return wire


def _wire_call(call: ToolCall) -> dict[str, Any]:
    # A model may have called a tool that does not exist, by a name that OpenAI refuses.
    name = _NOT_IN_TOOL_NAME.sub("_", call.name)[:_MAX_NAME_CHARACTERS]
    function = {"name": name, "arguments": encodable(call.arguments)}
    return {"id": encodable(call.id), "type": "function", "function": function}


def wire_tool(tool: ToolSpec) -> dict[str, Any]:
    """Return *tool* as the API takes it."""
    function = {"name": tool.name, "description": encodable(tool.description)}
    return {"type": "function", "function": {**function, "parameters": dict(tool.parameters)}}
