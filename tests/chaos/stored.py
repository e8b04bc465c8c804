"""What is stored at the end, read by the databases' own drivers and not by the library."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import psycopg
from sqlalchemy import make_url

from agno_sql.message import Message, ToolCall

Key = tuple[str, str]


class ConversationRow(NamedTuple):
    user: str
    session: str
    first_seq: int
    last_seq: int
    message_count: int
    run_id: str | None


class MessageRow(NamedTuple):
    user: str
    session: str
    seq: int
    role: str
    content: str
    run_id: str | None
    run_step: int | None
    tool_call_id: str | None
    tool_calls: Any
    input_tokens: int | None
    output_tokens: int | None

    @property
    def calls(self) -> list[dict[str, str]]:
        stored = self.tool_calls
        return (json.loads(stored) if isinstance(stored, str) else stored) or []

    @property
    def is_answer(self) -> bool:
        """Whether it ends a run."""
        return self.role == "assistant" and self.run_id is not None and not self.calls

    def message(self) -> Message:
        return Message(
            role=self.role,  # type: ignore[arg-type]
            content=self.content,
            tool_call_id=self.tool_call_id,
            tool_calls=tuple(ToolCall(**call) for call in self.calls),
        )


class RunRow(NamedTuple):
    user: str
    session: str
    run_id: str
    status: str
    attempt: int
    first_seq: int
    last_seq: int
    input_tokens: int
    output_tokens: int
    error_type: str | None
    error_message: str | None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.user, self.session, self.run_id


@dataclass(frozen=True)
class Stored:
    """All rows; messages in the order of their conversation."""

    conversations: list[ConversationRow]
    messages: list[MessageRow]
    runs: list[RunRow]

    def by_conversation(self) -> dict[Key, list[MessageRow]]:
        found: defaultdict[Key, list[MessageRow]] = defaultdict(list)
        for message in self.messages:
            found[message.user, message.session].append(message)
        return found

    def by_seq(self) -> dict[tuple[str, str, int], MessageRow]:
        return {(row.user, row.session, row.seq): row for row in self.messages}


_CONVERSATIONS: Final = (
    "SELECT user_id, session_id, first_seq, last_seq, message_count, run_id FROM conversations"
)
_MESSAGES: Final = (
    "SELECT user_id, session_id, seq, role, content, run_id, run_step, tool_call_id, tool_calls,"
    " input_tokens, output_tokens FROM messages ORDER BY user_id, session_id, seq"
)
_RUNS: Final = (
    "SELECT user_id, session_id, run_id, status, attempt, first_seq, last_seq, input_tokens,"
    " output_tokens, error_type, error_message FROM runs"
)
_RUNNING: Final = "SELECT count(*) FROM conversations WHERE run_id IS NOT NULL"


def read_stored(url: str) -> Stored:
    """Return everything that is stored, as it is at one moment in which nobody writes."""
    return Stored(
        [ConversationRow(*row) for row in _ask(url, _CONVERSATIONS)],
        [MessageRow(*row) for row in _ask(url, _MESSAGES)],
        [RunRow(*row) for row in _ask(url, _RUNS)],
    )


def count_running(url: str) -> int:
    """Return how many conversations are held by a run."""
    ((count,),) = _ask(url, _RUNNING)
    return int(count)


def _ask(url: str, query: str) -> list[tuple[Any, ...]]:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(parsed.database))) as file:
            return file.execute(query).fetchall()
    plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as server:
        return server.execute(query).fetchall()
