"""What tests of your own agents, models and memories can use. Needs the extra ``testing``.

``MemorySuite`` holds any memory to its promises, ``ScriptedOpenAI`` answers as the OpenAI API
does from a script of ``Reply`` records, and ``wire_violation`` finds what that API would refuse.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from agno_sql.errors import MissingExtraError

if TYPE_CHECKING:
    from agno_sql.testing.memory_suite import MemorySuite
    from agno_sql.testing.openai_server import Reply, ScriptedOpenAI
    from agno_sql.testing.wire_rules import violation as wire_violation

__all__ = ["MemorySuite", "Reply", "ScriptedOpenAI", "wire_violation"]

_HOMES: Final = {
    "MemorySuite": ("agno_sql.testing.memory_suite", "MemorySuite"),
    "Reply": ("agno_sql.testing.openai_server", "Reply"),
    "ScriptedOpenAI": ("agno_sql.testing.openai_server", "ScriptedOpenAI"),
    "wire_violation": ("agno_sql.testing.wire_rules", "violation"),
}
_OF_THE_EXTRA: Final = frozenset({"pytest", "pytest_asyncio", "starlette", "uvicorn"})


def __getattr__(name: str) -> Any:
    # Each name loads its own module only: a memory's test needs no web server.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    with MissingExtraError.unless("testing", _OF_THE_EXTRA, purpose=f"agno_sql.testing.{name}"):
        return getattr(import_module(module), attribute)
