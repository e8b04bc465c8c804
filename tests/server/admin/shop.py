"""A shop whose conversations an operator looks at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from agno_sql.errors import ModelTimeoutError
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.models.chat_model import ModelReply
from tests.agent.models import ScriptedModel, agent_of

if TYPE_CHECKING:
    from agno_sql.agent.agent import Agent
    from agno_sql.memory.sql import SQLMemory

LINE: Final = "<script>document.title='stolen'</script><img src=x onerror=alert(1)>{{ 7*7 }}&amp;"
HOSTILE: Final = [
    "a/b?c#d%2F",
    "  two blanks  ",
    " ",
    "\u200b",
    "👩‍👩‍👧 family",
    "שלום \u202eevil\u202c עולם",
    "\"quoted\" 'twice' <b>bold</b>",
    "<script>alert(1)</script>",
    "x" * 255,
    "😀" * 255,
    "..",
    "%",
    "+",
    "a&b=c;d",
    "{{ 7*7 }}",
    "\ue000\U0010ffff",
]


def look_up_order(order_id: int) -> str:
    """Tell where an order is."""
    return f"Order {order_id} has left the warehouse in Rotterdam and arrives on Thursday."


def shop_agent(memory: SQLMemory, *steps: object) -> Agent:
    """Return an agent that takes *steps*, and then always the same answer."""
    return agent_of(ScriptedModel(*steps, then="Hello!"), memory, tools=[look_up_order])  # type: ignore[arg-type]


async def chat_of(memory: SQLMemory, user: str, session: str = "default") -> None:
    """Let *user* ask for an order, be answered by means of a tool, and fail once."""
    call = ToolCall("call_1", "look_up_order", '{"order_id": 1017}')
    agent = shop_agent(
        memory,
        ModelReply("", tool_calls=(call,), usage=Usage(412, 18)),
        ModelReply("It arrives on Thursday.", usage=Usage(460, 12)),
        ModelTimeoutError("the model's provider did not answer in time"),
    )
    await agent.run("Where is my order 1017?", user, session_id=session, run_id="ask")
    with pytest.raises(ModelTimeoutError):
        await agent.run("And order 1018?", user, session_id=session, run_id="ask-again")


def spread(count: int, *, days: int) -> list[datetime]:
    """Return *count* moments over the last *days*."""
    now = datetime.now(UTC)
    return [now - timedelta(days=days) * n / count for n in range(count)]


def said(text: str, at: datetime) -> Message:
    """Return a user's message of another time."""
    return Message(role="user", content=text, created_at=at)
