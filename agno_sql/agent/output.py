"""What a run returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agno_sql.message import Usage

if TYPE_CHECKING:
    from agno_sql.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutput:
    """The outcome of one run.

    ``content`` is the answer. ``messages`` are those the run stored, the user's first, tool
    results in call order (of an earlier run, those still kept); ``usage`` sums the tokens of all its model calls.
    """

    content: str
    user_id: str
    session_id: str
    run_id: str
    model: str
    messages: tuple[Message, ...] = ()
    usage: Usage = field(default_factory=Usage)
