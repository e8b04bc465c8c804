"""The records that cross every seam: messages, tool calls, usage. Frozen, so sharing is safe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from agno_sql.errors import InvalidMessageError
from agno_sql.ids import shown, valid_run_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Role = Literal["system", "user", "assistant", "tool"]
ROLES: Final[frozenset[str]] = frozenset(get_args(Role))

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool.

    ``arguments`` is the exact text that the model sent, which need not be valid JSON.
    """

    id: str
    name: str
    arguments: str

    def __post_init__(self) -> None:
        for field in ("id", "name", "arguments"):
            value = getattr(self, field)
            if not isinstance(value, str):
                raise InvalidMessageError(f"tool call {field} must be a string, got {shown(value)}")
        if not self.id or not self.name:
            raise InvalidMessageError("a tool call needs an id and a name")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a model counted; 0 where it did not tell."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation.

    ``seq`` is 1, 2, 3… within its session and set by the memory that stored it. ``created_at`` is
    an aware time, kept in UTC; the memory sets it where it is ``None``. ``run_id`` names the run
    that wrote the message and ``run_step`` its place in there (0 is the user's message), both
    ``None`` for one that was added by hand. ``usage`` is what a model's message cost.

    Raises:
        InvalidMessageError: A field is of the wrong type or does not fit the role; names it.
    """

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    run_id: str | None = None
    run_step: int | None = None
    usage: Usage | None = None
    seq: int | None = None
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.role, str) or self.role not in ROLES:
            raise InvalidMessageError(
                f"role must be one of {', '.join(get_args(Role))}, got {shown(self.role)}"
            )
        if not isinstance(self.content, str):
            raise InvalidMessageError(f"content must be a string, got {shown(self.content)}")
        if self.name is not None and not isinstance(self.name, str):
            raise InvalidMessageError(f"name must be a string or None, got {shown(self.name)}")
        if self.run_id is not None:
            valid_run_id(self.run_id)
        if self.run_step is not None and (type(self.run_step) is not int or self.run_step < 0):
            raise InvalidMessageError(
                f"run_step must be a whole number of 0 or more, or None, got {shown(self.run_step)}"
            )
        if self.usage is not None and not isinstance(self.usage, Usage):
            raise InvalidMessageError(f"usage must be a Usage or None, got {shown(self.usage)}")
        # Most messages have neither, and each that is read comes through here.
        if self.tool_calls != () or self.tool_call_id is not None or self.role == "tool":
            self._check_tool_fields()
        self._check_created_at()

    def _check_tool_fields(self) -> None:
        calls = tuple(self.tool_calls)
        if not all(isinstance(call, ToolCall) for call in calls):
            raise InvalidMessageError("tool_calls must be ToolCall records")
        if calls and self.role != "assistant":
            raise InvalidMessageError(f"only an assistant message has tool_calls, not {self.role}")
        object.__setattr__(self, "tool_calls", calls)
        if self.role != "tool":
            if self.tool_call_id is not None:
                raise InvalidMessageError(
                    f"only a tool message has a tool_call_id, not {self.role}"
                )
        elif not isinstance(self.tool_call_id, str) or not self.tool_call_id:
            raise InvalidMessageError(
                f"a tool message needs the tool_call_id it answers, got {shown(self.tool_call_id)}"
            )

    def _check_created_at(self) -> None:
        if self.created_at is None:
            return
        if not isinstance(self.created_at, datetime) or self.created_at.utcoffset() is None:
            raise InvalidMessageError(
                "created_at must be an aware datetime, for example datetime.now(UTC)"
            )
        if self.created_at.tzinfo is UTC:
            return
        try:
            object.__setattr__(self, "created_at", self.created_at.astimezone(UTC))
        except OverflowError as error:
            raise InvalidMessageError("created_at is out of the range of UTC datetimes") from error

    @classmethod
    def system(cls, content: str) -> Message:
        """Return a system message."""
        return cls(role="system", content=content)

    @classmethod
    def user(cls, content: str, *, name: str | None = None) -> Message:
        """Return a user's message; *name* tells several speakers of one conversation apart."""
        return cls(role="user", content=content, name=name)

    @classmethod
    def assistant(cls, content: str, tool_calls: Iterable[ToolCall] = ()) -> Message:
        """Return a model's message, with the tools it wants called."""
        return cls(role="assistant", content=content, tool_calls=tuple(tool_calls))

    @classmethod
    def tool(cls, content: str, *, tool_call_id: str, name: str | None = None) -> Message:
        """Return the result of the tool call *tool_call_id*; *name* is the tool's."""
        return cls(role="tool", content=content, tool_call_id=tool_call_id, name=name)


class _Blank:
    """A Message to be: its layout, and attributes that can be set."""

    __slots__ = Message.__slots__


def unchecked_message(  # noqa: PLR0913, PLR0917  (a message's fields)
    role: Role,
    content: str,
    name: str | None,
    tool_calls: tuple[ToolCall, ...],
    tool_call_id: str | None,
    run_id: str | None,
    run_step: int | None,
    usage: Usage | None,
    seq: int,
    created_at: datetime,
) -> Message:
    """Return the message of these fields, which the caller has checked.

    The constructor takes six times as long, and was a fifth of what reading a conversation costs.
    """
    blank: Any = _Blank()
    blank.role = role
    blank.content = content
    blank.name = name
    blank.tool_calls = tool_calls
    blank.tool_call_id = tool_call_id
    blank.run_id = run_id
    blank.run_step = run_step
    blank.usage = usage
    blank.seq = seq
    blank.created_at = created_at
    blank.__class__ = Message
    message: Message = blank
    return message


def numbered(new: Sequence[Message], *, last_seq: int, at: datetime) -> list[Message]:
    """Return *new* with the numbers that end with *last_seq*, made *at* unless they say when."""
    return [
        unchecked_message(
            m.role,
            m.content,
            m.name,
            m.tool_calls,
            m.tool_call_id,
            m.run_id,
            m.run_step,
            m.usage,
            seq,
            m.created_at or at,
        )
        for seq, m in enumerate(new, start=last_seq - len(new) + 1)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One conversation of a user, as an operator sees it.

    Its *title* is how the user's oldest kept message begins; ``None`` if there is none.
    """

    user_id: str
    session_id: str
    message_count: int
    created_at: datetime
    last_active_at: datetime
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserActivity:
    """A user with the number of their sessions and kept messages, and when they were last here."""

    user_id: str
    sessions: int
    messages: int
    last_active_at: datetime


def checked_messages(messages: Iterable[Message]) -> list[Message]:
    """Return *messages* as a list or raise InvalidMessageError for what is none."""
    checked = list(messages)
    for message in checked:
        if not isinstance(message, Message):
            raise InvalidMessageError(
                f"expected a Message, got {shown(message)}; make one with Message.user(text)"
            )
    return checked


def encodable(text: str) -> str:
    """Return *text* with U+FFFD for each lone surrogate, which UTF-8 and JSON can't carry."""
    return _LONE_SURROGATE.sub("\ufffd", text)
