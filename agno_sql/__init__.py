"""Durable, multi-tenant conversations of AI agents, kept in your own SQL database."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from agno_sql import errors

if TYPE_CHECKING:
    from agno_sql.agent.agent import Agent
    from agno_sql.agent.context import HookInput, RunContext
    from agno_sql.agent.events import (
        RunCompleted,
        RunEvent,
        RunFailed,
        TextDelta,
        ToolCalled,
        ToolReturned,
    )
    from agno_sql.agent.output import RunOutput
    from agno_sql.agent.tools import Tool, Toolkit, tool
    from agno_sql.clock import Clock
    from agno_sql.memory.in_memory import InMemory
    from agno_sql.memory.protocol import Memory
    from agno_sql.memory.sql import SQLMemory
    from agno_sql.message import Message, Role, Session, ToolCall, Usage, UserActivity
    from agno_sql.models.chat_model import ChatModel, ModelReply, ToolSpec
    from agno_sql.models.openai_chat import OpenAIChat
    from agno_sql.runs import RunRecord

__all__ = [
    "Agent",
    "ChatModel",
    "Clock",
    "HookInput",
    "InMemory",
    "Memory",
    "Message",
    "ModelReply",
    "OpenAIChat",
    "Role",
    "RunCompleted",
    "RunContext",
    "RunEvent",
    "RunFailed",
    "RunOutput",
    "RunRecord",
    "SQLMemory",
    "Session",
    "TextDelta",
    "Tool",
    "ToolCall",
    "ToolCalled",
    "ToolReturned",
    "ToolSpec",
    "Toolkit",
    "Usage",
    "UserActivity",
    "errors",
    "tool",
]

# Loaded when first used: the command line and a plain import stay fast.
_MODULES: Final = {
    "agno_sql.agent.agent": ("Agent",),
    "agno_sql.agent.context": ("HookInput", "RunContext"),
    "agno_sql.agent.events": (
        "RunCompleted",
        "RunEvent",
        "RunFailed",
        "TextDelta",
        "ToolCalled",
        "ToolReturned",
    ),
    "agno_sql.agent.output": ("RunOutput",),
    "agno_sql.agent.tools": ("Tool", "Toolkit", "tool"),
    "agno_sql.clock": ("Clock",),
    "agno_sql.memory.in_memory": ("InMemory",),
    "agno_sql.memory.protocol": ("Memory",),
    "agno_sql.memory.sql": ("SQLMemory",),
    "agno_sql.message": ("Message", "Role", "Session", "ToolCall", "Usage", "UserActivity"),
    "agno_sql.models.chat_model": ("ChatModel", "ModelReply", "ToolSpec"),
    "agno_sql.models.openai_chat": ("OpenAIChat",),
    "agno_sql.runs": ("RunRecord",),
}
_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
