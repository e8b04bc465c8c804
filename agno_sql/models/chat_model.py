"""What the agent needs from a language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from agno_sql.errors import BadReplyError
from agno_sql.ids import shown
from agno_sql.message import ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from agno_sql.message import Message

_MOST_TOKENS: Final = 2**63 - 1  # what a column holds


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it; ``parameters`` is the JSON schema of its arguments object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelReply:
    """A model's complete answer: text, the tools it wants called, or both.

    Raises:
        BadReplyError: The content is no string, a tool call no ToolCall, or the usage no number
            of tokens.
    """

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        if not isinstance(self.content, str):
            raise BadReplyError(f"a reply's content must be a string, got {shown(self.content)}")
        if not all(isinstance(call, ToolCall) for call in self.tool_calls):
            raise BadReplyError("a reply's tool_calls must be ToolCall records")
        for tokens in (self.usage.input_tokens, self.usage.output_tokens):
            if type(tokens) is not int or not 0 <= tokens <= _MOST_TOKENS:
                raise BadReplyError(f"a reply can't have cost {tokens!r} tokens")


class ChatModel(Protocol):
    """A language model that continues a conversation. Safe for any number of concurrent calls.

    Failures are raised as ModelError; a cancelled call releases its connection.
    """

    @property
    def name(self) -> str:
        """The model's name, as its provider knows it."""
        ...

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> ModelReply:
        """Return the model's answer to *messages*, oldest first, instructions included."""
        ...

    def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        """Yield pieces of the answer's text as they arrive, and last the whole ModelReply.

        The pieces joined are the reply's content. A stream that ends without a ModelReply did not
        end well, and an implementation raises StreamCutError instead. Closing it early releases
        the connection.
        """
        ...
