"""``agno-sql chat``: talk to an agent, at a terminal or through a pipe."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import typer

from agno_sql.agent.agent import Agent
from agno_sql.cli.console import is_terminal, say_error
from agno_sql.cli.database import shown
from agno_sql.cli.model import chosen_model
from agno_sql.cli.terminal_chat import TerminalChat
from agno_sql.cli.text import safe
from agno_sql.errors import AgnoSQLError
from agno_sql.ids import named_user_id, valid_session_id
from agno_sql.memory.sql import SQLMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSTRUCTIONS: Final = (
    "You are a helpful assistant in a terminal: answer in plain text, without Markdown."
)


def chat(user: str, *, session: str, url: str) -> None:
    """Answer what *user* says until they leave, or until the input ends."""
    named_user_id(user)
    valid_session_id(session)
    model = chosen_model()
    with asyncio.Runner() as runner, _opened(runner, url) as memory:
        agent = Agent(name="chat", model=model, memory=memory, instructions=_INSTRUCTIONS)
        if is_terminal():
            TerminalChat(
                runner=runner,
                memory=memory,
                agent=agent,
                user=user,
                session=session,
                database=shown(url),
            ).run()
        elif not _answer_lines(runner, agent, user, session):
            raise typer.Exit(1)


@contextmanager
def _opened(runner: asyncio.Runner, url: str) -> Iterator[SQLMemory]:
    stack = AsyncExitStack()
    memory = runner.run(stack.enter_async_context(SQLMemory.open(url)))
    try:
        yield memory
    finally:
        runner.run(stack.aclose())


def _answer_lines(runner: asyncio.Runner, agent: Agent, user: str, session: str) -> bool:
    """Print the answer to each line of stdin; return whether all went well."""
    all_well = True
    for line in sys.stdin:
        if not (text := line.strip()):
            continue
        try:
            output = runner.run(agent.run(text, user, session_id=session))
        except AgnoSQLError as error:
            say_error(error)
            all_well = False
        else:
            sys.stdout.write(f"{safe(output.content)}\n")
            sys.stdout.flush()
    return all_well
