"""The tools of the chaos: each tells when it begins and when it is done."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from agno_sql.agent.context import RunContext  # noqa: TC001  (a tool's annotations are read)
from agno_sql.agent.tools import tool
from tests.chaos.script import CHARGE, LOOK_UP, MEASURE, POST, tagged

if TYPE_CHECKING:
    from collections.abc import Callable

    from agno_sql.agent.tools import Tool


def toolbox(tell: Callable[..., None]) -> list[Tool]:
    """Return two tools that may be repeated and two that must not; *tell* writes a record."""

    def begun(name: str, context: RunContext) -> None:
        tell(
            tool=name,
            phase="begun",
            key=context.idempotency_key,
            run=[context.user_id, context.session_id, context.run_id],
        )

    def done(name: str, context: RunContext, *, fails: bool) -> str:
        tell(
            tool=name,
            phase="done",
            key=context.idempotency_key,
            run=[context.user_id, context.session_id, context.run_id],
        )
        what = f"{context.run_id} {name} {context.idempotency_key} {uuid4().hex[:8]}"
        result = tagged(context.user_id, context.session_id, what)
        if fails:
            raise ValueError(result)
        return result

    @tool(name=CHARGE)
    async def charge(context: RunContext, seconds: float, *, fails: bool) -> str:
        begun(CHARGE, context)
        await asyncio.sleep(seconds)
        return done(CHARGE, context, fails=fails)

    @tool(name=POST)
    def post(context: RunContext, seconds: float, *, fails: bool) -> str:
        begun(POST, context)
        time.sleep(seconds)
        return done(POST, context, fails=fails)

    @tool(name=LOOK_UP, idempotent=True)
    async def look_up(context: RunContext, seconds: float, *, fails: bool) -> str:
        begun(LOOK_UP, context)
        await asyncio.sleep(seconds)
        return done(LOOK_UP, context, fails=fails)

    @tool(name=MEASURE, idempotent=True)
    def measure(context: RunContext, seconds: float, *, fails: bool) -> str:
        begun(MEASURE, context)
        time.sleep(seconds)
        return done(MEASURE, context, fails=fails)

    return [charge, post, look_up, measure]
