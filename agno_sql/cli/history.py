"""``agno-sql history``: print a conversation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rich.text import Text

from agno_sql.cli.console import note, out, print_json
from agno_sql.cli.database import open_to_read
from agno_sql.cli.text import one_line, safe, when

if TYPE_CHECKING:
    from agno_sql.message import Message

_STYLES = {"user": "bold cyan", "assistant": "bold green", "tool": "yellow", "system": "magenta"}
_INDENT = "    "


def history(user: str, *, session: str, limit: int | None, as_json: bool, url: str) -> None:
    """Print the newest *limit* messages of a conversation, oldest first."""
    messages = asyncio.run(_read(user, session, limit, url))
    if as_json:
        print_json([as_record(message) for message in messages])
    elif messages:
        console = out()
        for message in messages:
            console.print(as_text(message), soft_wrap=True)
    else:
        note(f"no messages of user {one_line(user)} in session {one_line(session)}")


def as_record(message: Message) -> dict[str, Any]:
    """Return *message* for JSON, without what it does not have."""
    calls = [
        {"id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    record = {
        "seq": message.seq,
        "role": message.role,
        "content": message.content,
        "created_at": message.created_at and message.created_at.isoformat(),
        "name": message.name,
        "tool_calls": calls or None,
        "tool_call_id": message.tool_call_id,
        "run_id": message.run_id,
    }
    return {field: value for field, value in record.items() if value is not None}


def as_text(message: Message) -> Text:
    """Return *message* for a terminal: a line about it, and its content indented."""
    named = f" {one_line(message.name)}" if message.name else ""
    lines = [
        Text.assemble(
            (f"{message.seq or '-':>3} ", "dim"),
            (message.role, _STYLES[message.role]),
            (f"{named}  {when(message.created_at)} UTC", "dim"),
        )
    ]
    lines += [Text(_INDENT + line) for line in safe(message.content).splitlines()]
    lines += [
        Text(f"{_INDENT}calls {one_line(call.name)}({one_line(call.arguments)})", style="dim")
        for call in message.tool_calls
    ]
    return Text("\n").join(lines)


async def _read(user: str, session: str, limit: int | None, url: str) -> list[Message]:
    async with open_to_read(url) as memory:
        return await memory.get_messages(user, session_id=session, limit=limit)
