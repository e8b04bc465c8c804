"""A conversation at a terminal. Each turn is a run of its own, so Ctrl-C stops only that."""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from agno_sql.cli.answer import Answer, call_text, label, result_text
from agno_sql.cli.console import confirmed, out, say_error, styled
from agno_sql.cli.model import described
from agno_sql.cli.stopping import run_until_stopped
from agno_sql.cli.text import counted, one_line, safe
from agno_sql.cli.users import as_table
from agno_sql.errors import AgnoSQLError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from rich.console import Console

    from agno_sql.agent.agent import Agent
    from agno_sql.memory.sql import SQLMemory
    from agno_sql.message import Message

_SHOWN_AT_START: Final = 20
_MOST_USERS: Final = 50
_COMMAND: Final = re.compile("/[a-z]*")
_HELP: Final = {
    "/history": "show the whole conversation",
    "/clear": "delete the conversation, after asking",
    "/users": "list who else is stored, longest idle first",
    "/help": "show this",
    "/quit": "leave, as Ctrl-D does; Ctrl-C stops an answer",
}


@dataclass(slots=True, kw_only=True)
class TerminalChat:
    """One user's conversation with an agent; *database* is shown, never opened."""

    runner: asyncio.Runner
    memory: SQLMemory
    agent: Agent
    user: str
    session: str
    database: str
    console: Console = field(default_factory=out)
    _edits_lines: bool = field(init=False)

    def __post_init__(self) -> None:
        self._edits_lines = _load_line_editing()

    def run(self) -> None:
        """Talk until the user leaves."""
        self._show_header()
        self._show_history(at_most=_SHOWN_AT_START)
        while (line := self._next_line()) is not None and line != "/quit":
            if not line:
                continue
            try:
                self._handle(line)
            except KeyboardInterrupt:
                self._say("stopped")
            except AgnoSQLError as error:
                say_error(error)

    def _next_line(self) -> str | None:
        try:
            return input(self._prompt()).strip()
        except EOFError:
            self.console.print()
            return None
        except KeyboardInterrupt:
            self.console.print()
            return ""

    def _handle(self, line: str) -> None:
        word = line.split(maxsplit=1)[0]
        if not _COMMAND.fullmatch(word):
            run_until_stopped(self.runner, self._answer(line))
            return
        commands: dict[str, Callable[[], None]] = {
            "/history": self._show_history,
            "/clear": self._clear,
            "/users": self._show_users,
            "/help": self._show_help,
        }
        if word in commands:
            commands[word]()
        else:
            self._say(f"there is no {one_line(word)}; /help lists the commands")

    async def _answer(self, line: str) -> None:
        events = self.agent.stream(line, self.user, session_id=self.session)
        answer = Answer(self.console)
        try:
            answer.begin()
            async with aclosing(events):
                async for event in events:
                    answer.show(event)
        finally:
            answer.end()

    def _show_header(self) -> None:
        header = Table.grid(padding=(0, 2))
        for name, value in {
            "user": one_line(self.user),
            "session": one_line(self.session),
            "model": one_line(described(self.agent.model)),
            "database": one_line(self.database),
        }.items():
            header.add_row(styled(name, "dim"), styled(value))
        self.console.rule(style="dim")
        self.console.print(header)
        self.console.rule(style="dim")
        self._say("/help lists the commands, Ctrl-D leaves.")

    def _show_history(self, *, at_most: int | None = None) -> None:
        messages, kept = self.runner.run(self._read_history(at_most))
        if older := kept - len(messages):
            self._say(f"{counted(older, 'older message')} not shown; /history shows all")
        for message in messages:
            self.console.print(self._message_text(message))
        if not messages:
            self._say("no messages yet")

    async def _read_history(self, at_most: int | None) -> tuple[list[Message], int]:
        messages = await self.memory.get_messages(self.user, session_id=self.session, limit=at_most)
        kept = await self.memory.size(self.user, session_id=self.session)
        return messages, max(kept, len(messages))

    def _clear(self) -> None:
        kept = self.runner.run(self.memory.size(self.user, session_id=self.session))
        question = f"Delete {counted(kept, 'message')} of session {one_line(self.session)}?"
        try:
            is_meant = confirmed(question)
        except KeyboardInterrupt:
            self.console.print()
            is_meant = False
        if is_meant:
            self.runner.run(self.agent.clear_memory(self.user, session_id=self.session))
        self._say("deleted" if is_meant else "nothing was deleted")

    def _show_users(self) -> None:
        users = self.runner.run(self.memory.inactive_users(timedelta(0), limit=_MOST_USERS + 1))
        self.console.print(as_table(users[:_MOST_USERS]))
        if len(users) > _MOST_USERS:
            self._say("there are more: agno-sql users lists them")

    def _show_help(self) -> None:
        commands = Table.grid(padding=(0, 2))
        for name, does in _HELP.items():
            commands.add_row(styled(name, "cyan"), styled(does))
        self.console.print(commands)

    def _say(self, text: str) -> None:
        self.console.print(Text(text, style="dim"))

    def _prompt(self) -> str:
        is_colored = self.console.color_system is not None and not self.console.no_color
        if self._edits_lines and is_colored:
            # The marks tell readline what takes no room.
            return "\x01\x1b[1;36m\x02you\x01\x1b[0m\x02 > "
        return label("user").plain

    def _message_text(self, message: Message) -> Text:
        if message.role == "tool":
            return result_text(self.console, message.content)
        calls = [call_text(self.console, call.name, call.arguments) for call in message.tool_calls]
        return Text("\n").join([label(message.role).append(safe(message.content)), *calls])


def _load_line_editing() -> bool:
    """Make input() edit lines, where the system can; return whether it does."""
    try:
        import_module("readline")
    except ImportError:
        return False
    return True
