"""The other process of ``agno-sql demo``: a new agent on the same database. Not a command.

Reads one JSON object from stdin, so that no password of a URL is seen in a list of processes,
and writes one to stdout.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING

from agno_sql.agent.agent import Agent
from agno_sql.cli.console import say_error
from agno_sql.cli.model import chosen_model
from agno_sql.errors import AgnoSQLError
from agno_sql.memory.sql import SQLMemory

if TYPE_CHECKING:
    from collections.abc import Mapping


async def tell(
    url: str, session: str, instructions: str, said: Mapping[str, str]
) -> dict[str, str]:
    """Say to one new agent what each user has to say; return its answer to each."""
    async with SQLMemory.open(url) as memory:
        agent = Agent(name="demo", model=chosen_model(), memory=memory, instructions=instructions)
        return {
            user: (await agent.run(text, user, session_id=session)).content
            for user, text in said.items()
        }


def main() -> None:
    """Answer what stdin asks."""
    try:
        answers = asyncio.run(tell(**json.load(sys.stdin)))
    except AgnoSQLError as error:
        say_error(error)
        sys.exit(1)
    json.dump({"pid": os.getpid(), "answers": answers}, sys.stdout)


if __name__ == "__main__":
    main()
