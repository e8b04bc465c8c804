"""A small offline model for demonstrations and tests: no AI, no network, no state."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from agno_sql.models.chat_model import ModelReply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from agno_sql.message import Message
    from agno_sql.models.chat_model import ToolSpec

_MAX_NAME_WORDS: Final = 5
_MAX_QUOTED_CHARACTERS: Final = 200
_MAX_ASKED_CHARACTERS: Final = 1000

_WITH_SPACE: Final = re.compile(r"\s*\S+\s*|\s+")
_TELLS_NAME: Final = re.compile(
    r"""\b(?: my\ name(?:\ is|'s) | i\ am\ called | i'm\ called
            | (?<!n't\ )(?<!not\ )(?<!never\ ) call\ me )
        \s+ ["*_«»]? (?=(?P<rest>[^\n]*))""",
    re.VERBOSE | re.IGNORECASE,
)
_NAME_WORD: Final = re.compile(
    r"""\s*( (?:dr|mr|mrs|ms|prof|st)\.(?=\s)     # a title
           | [^\W\d_]\.(?=\s*[^\W\d_]+)           # an initial
           | [^\s\x00-\x1f\x7f-\x9f\ud800-\udfff.,!?;:…"*_«»()\[\]{}<>/\\|
               \u3001\u3002\uff01\uff0c\uff0e\uff1f]+ )  # to the next sign, CJK ones too""",
    re.VERBOSE | re.IGNORECASE,
)
_PARTICLES: Final = frozenset(
    {"al", "bin", "da", "de", "del", "der", "di", "la", "le", "van", "von"}
)
# Begins no name: what else follows "my name is" and "call me", or follows a name.
_NO_NAME: Final = re.compile(
    r"""about|after|again|also|although|an?|and|any\w*|as|at|back|be|because|before|but|by|can|crazy
      |do(?:es)?|either|for|from|hello|here|hi|how|however|i|i'm|if|in|is|it|it's|later|maybe|my
      |never|nice|not?|nothing|now|of|on|or|please|since|so|soon|still|thanks?|that|the
      |then|there|this|to|today|tomorrow|tonight|unknown|what|what's|when|where|which|while|who|why
      |with|yet|your?""",
    re.VERBOSE | re.IGNORECASE,
)

_ASKS_NAME: Final = re.compile(
    r"""\bwho\ am\ i\b | \bmy\ name\ *\?
      | \b(?:what(?:\ is|\ was|'s|s)?|know|remember|tell\ me|say|guess|which\ is)\ my\ name\b""",
    re.VERBOSE | re.IGNORECASE,
)
_ASKS_COUNT: Final = re.compile(r"\bhow many (?:messages|things)\b", re.IGNORECASE)
_ASKS_SAID: Final = re.compile(
    r"""\b(?:what|which)\b .* \b(?P<who>i|you)\b \s (?:said?|say|wrote|write|told|tell|asked?) \b
        .*? \b(?P<which>first|last)\b
      | \b(?P<nth>first|last)\b .* \b(?P<teller>i|you)\b \s (?:said|wrote|told|asked)\b
      | \b(?:what|which)\b .* \b(?P<whose>my|your) \s (?P<place>first|last|previous) \s
        (?:message|answer|question|words?)\b""",
    re.VERBOSE | re.IGNORECASE,
)
_GREETS: Final = re.compile(
    r"\W*(?:hi|hello|hey|howdy|greetings|good (?:morning|afternoon|evening|day))\b", re.IGNORECASE
)


class DemoModel:
    """Answers a few questions from the messages it is given, and says that it is no AI.

    Knows names that users told ("my name is", "I am called", "call me"), the first and the last
    thing said, and how many messages there are; what was not told it does not know. The same
    messages always get the same answer, and one instance serves any number of users.
    """

    @property
    def name(self) -> str:
        """What outputs and logs call it."""
        return "demo"

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> ModelReply:
        """Return the answer to the last message; *tools* are never called."""
        del tools
        return ModelReply(answer([message for message in messages if message.role != "system"]))

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        """Yield the answer word by word, and last the whole reply."""
        whole = await self.reply(messages, tools)
        for word in _WITH_SPACE.findall(whole.content):
            yield word
        yield whole


def answer(messages: Sequence[Message]) -> str:
    """Return what to say after *messages*, which hold no instructions."""
    last = messages[-1].content if messages and messages[-1].role == "user" else ""
    asked = _plain(last[:_MAX_ASKED_CHARACTERS])
    known = _name_told([message.content for message in messages if message.role == "user"])
    if _ASKS_NAME.search(asked):
        return f"Your name is {known}." if known else "You have not told me your name."
    if _ASKS_COUNT.search(asked):
        return f"I see {len(messages)} {'message' if len(messages) == 1 else 'messages'}."
    if wanted := _ASKS_SAID.search(asked):
        return _what_was_said(wanted, messages[:-1])
    if told := _name_told([asked]):
        return f"Nice to meet you, {told}!"
    if _GREETS.match(asked):
        return f"Hello, {known}!" if known else "Hello! What's your name?"
    return (
        "I am the small offline demo model, no AI: I only remember names and what was said. "
        "Set OPENAI_API_KEY to talk to a real model."
    )


def _what_was_said(wanted: re.Match[str], before: Sequence[Message]) -> str:
    by_user = (wanted["who"] or wanted["teller"] or wanted["whose"]).lower() in ("i", "my")
    first = (wanted["which"] or wanted["nth"] or wanted["place"]).lower() == "first"
    role, who = ("user", "You") if by_user else ("assistant", "I")
    said = [message.content for message in before if message.role == role and message.content]
    if not said:
        return f"{who} said nothing before that I can see."
    text = said[0 if first else -1]
    if len(text) > _MAX_QUOTED_CHARACTERS:
        text = f"{text[:_MAX_QUOTED_CHARACTERS]}…"
    return f'{who} {"first" if first else "last"} said: "{text}"'


def _name_told(texts: Iterable[str]) -> str | None:
    """Return the name that *texts*, oldest first, told last."""
    name = None
    for text in texts:
        for told in _TELLS_NAME.finditer(_plain(text)):
            name = _leading_name(told["rest"]) or name
    return name


def _leading_name(text: str) -> str | None:
    """Return the name that *text* begins with: a word, and those after it that look like names."""
    words: list[str] = []
    position = 0
    while len(words) < _MAX_NAME_WORDS and (found := _NAME_WORD.match(text, position)):
        word = found[1].strip("'-~")
        if not _may_follow(word) if words else not _may_begin(word):
            break
        words.append(word)
        position = found.end()
    while len(words) > 1 and words[-1] in _PARTICLES:
        words.pop()
    return " ".join(words).removesuffix(".") or None


def _may_begin(word: str) -> bool:
    return word[:1].isalpha() and not _NO_NAME.fullmatch(word)


def _may_follow(word: str) -> bool:
    return _may_begin(word) and (not word[0].islower() or word in _PARTICLES)


def _plain(text: str) -> str:
    """Return *text* composed, with straight apostrophes and quotes and single spaces."""
    composed = unicodedata.normalize("NFC", text)
    straight = re.sub("[\u2018\u2019\u02bc`]", "'", re.sub("[\u201c-\u201e]", '"', composed))
    return re.sub(r"[^\S\n]+", " ", straight)
