"""A small offline model for demonstrations: no AI, no network, no state."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from agno_sql.models.chat_model import ModelReply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from agno_sql.message import Message
    from agno_sql.models.chat_model import ToolSpec

_TELLS_NAME: Final = re.compile(
    r"""\b (?: my\ name(?:\ is|['\u2019]s) | i(?:\ am|['\u2019]m)\ called | call\ me ) \ + "?
        (?! (?:not|what|when|later|back) \b ) (?= ([^\W\d_] [^\n.,;:!?"。]{0,80}) )""",
    re.VERBOSE | re.IGNORECASE,
)
_ASKS_NAME: Final = re.compile(
    r"\bwho am i\b|\bwhat\S*(?: is)? my name\b|\bmy name(?:\?|\W*$)", re.IGNORECASE
)
_GREETS: Final = re.compile(r"\W*(?:hi|hello|hey|good (?:morning|day|evening))\b", re.IGNORECASE)


class DemoModel:
    """Remembers the name that a user told, greets, and else says that it is no AI.

    All it knows it reads in the messages, so one instance serves any number of users.
    """

    @property
    def name(self) -> str:
        """What outputs and logs call it."""
        return "demo"

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> ModelReply:
        """Return the answer to the last message; *tools* are never called."""
        del tools
        return ModelReply(answer([m.content for m in messages if m.role == "user"]))

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        """Yield the answer word by word, and last the whole reply."""
        whole = await self.reply(messages, tools)
        for word in re.findall(r"\S+\s*", whole.content):
            yield word
        yield whole


def answer(said: Sequence[str]) -> str:
    """Return what to answer to a user who *said* this, oldest first."""
    last = said[-1] if said else ""
    name = _name_told("\n".join(said))
    if _ASKS_NAME.search(last):
        return f"Your name is {name}." if name else "You have not told me your name."
    if _name_told(last):
        return f"Nice to meet you, {name}!"
    if _GREETS.match(last):
        return f"Hello, {name}!" if name else "Hello! What's your name?"
    return (
        "I am the small offline demo model, no AI: I only remember names. "
        "Set OPENAI_API_KEY to talk to a real model."
    )


def _name_told(text: str) -> str | None:
    """Return the name that *text* tells last: a word, and the capitalized ones after it."""
    told = _TELLS_NAME.findall(text)
    if not told:
        return None
    first, *more = told[-1].split()
    return " ".join([first, *takewhile(lambda word: word[0].isupper(), more)])
