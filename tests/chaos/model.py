"""A model that follows the script of each run, and watches what it is shown."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from uuid import uuid4

from agno_sql.errors import ModelRequestError, ModelUnavailableError
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.models.chat_model import ModelReply
from agno_sql.testing.wire_rules import violation
from tests.agent.models import as_wire
from tests.chaos.fault import CROSS_TENANT, INVALID
from tests.chaos.script import script_of, tagged, tags_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from agno_sql.models.chat_model import ToolSpec


class ScriptModel:
    """A ChatModel whose calls depend on the run alone; each answer's text is unique.

    So two answers to one run can be told apart. *complain* is told what a provider would refuse,
    and what belongs to another conversation.
    """

    name = "script-1"

    def __init__(self, complain: Callable[[str, str], None]) -> None:
        self._complain = complain

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> ModelReply:
        asked = max(n for n, message in enumerate(messages) if message.role == "user")
        ((user, session, run_id),) = tags_of(messages[asked].content)
        self._check(messages, user, session, run_id)
        script = script_of(run_id)
        await asyncio.sleep(script.thinks_s)
        rounds = sum(1 for message in messages[asked:] if message.tool_calls)
        # The providers' ids repeat from round to round, and some from call to call.
        calls = (
            tuple(
                ToolCall(
                    f"call_{position}",
                    call.name,
                    json.dumps({"seconds": call.seconds, "fails": call.fails}),
                )
                for position, call in enumerate(script.round_of(rounds))
            )
            if script.wants_calls(rounds)
            else ()
        )
        if not calls and script.ending == "refusal":
            raise ModelUnavailableError("the script says so")
        text = tagged(user, session, f"{run_id} {'calls' if calls else 'answer'} {uuid4().hex}")
        return ModelReply(text, calls, Usage(len(messages), 1))

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        reply = await self.reply(messages, tools)
        yield reply.content
        yield reply

    def _check(self, messages: Sequence[Message], user: str, session: str, run_id: str) -> None:
        if broken := violation(as_wire(messages)):
            self._complain(INVALID, f"the model was shown by {run_id}: {broken}")
            raise ModelRequestError(broken)
        for message in messages:
            for tag in tags_of(message.content):
                if tag[:2] != (user, session):
                    self._complain(CROSS_TENANT, f"{run_id} was shown {message.content}")
