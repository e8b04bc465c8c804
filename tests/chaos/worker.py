"""A worker: a process of its own that serves many users with one agent, until it is killed.

It reads jobs from its input, and writes a record to its output after the library has
acknowledged one, before and after each tool call, and for what it had to log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import traceback
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from agno_sql.agent.agent import Agent
from agno_sql.agent.events import RunCompleted, RunFailed
from agno_sql.errors import AgnoSQLError, StoreError, StoreUnavailableError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.chaos.job import Job
from tests.chaos.model import ScriptModel
from tests.chaos.script import MAX_LOOPS, SMALL, SMALL_CAPACITY, kind_of
from tests.chaos.toolbox import toolbox

if TYPE_CHECKING:
    from agno_sql.agent.output import RunOutput

_BUSY_TIMEOUT: Final = timedelta(seconds=5)
_HISTORY: Final = 30
_OPENS_FOR_S: Final = 60.0

_output_lock = threading.Lock()


def tell(**record: Any) -> None:
    """Write one record; the driver has it from then on, whatever becomes of this process."""
    line = json.dumps(record).encode() + b"\n"
    with _output_lock:
        while line:
            line = line[os.write(1, line) :]


class Desk:
    """Does the jobs, each as a task of its own."""

    def __init__(self, roomy: SQLMemory, small: SQLMemory, lease: timedelta) -> None:
        def agent_of(name: str, memory: SQLMemory) -> Agent:
            return Agent(
                name=name,
                model=ScriptModel(lambda kind, what: tell(fault=kind, what=what)),
                memory=memory,
                instructions="Follow the script.",
                tools=toolbox(tell),
                max_loops=MAX_LOOPS,
                history_limit=_HISTORY,
                lease=lease,
                busy_timeout=_BUSY_TIMEOUT,
            )

        self._memory = roomy
        self._agents = {SMALL: agent_of("small", small), "": agent_of("roomy", roomy)}
        self._every = lease.total_seconds() / 2

    async def do(self, job: Job) -> None:
        try:
            told = await {
                "run": self._run,
                "add": self._add,
                "clear": self._clear,
                "cancel": self._cancel,
                "recover": self._recover,
            }[job.kind](job)
        except (AgnoSQLError, asyncio.CancelledError) as error:
            told = {"told": type(error).__name__, "text": str(error)}
        except Exception as error:  # noqa: BLE001  (the verdict tells that it should not be)
            told = {"told": type(error).__name__, "text": traceback.format_exc()}
        tell(number=job.number, **told)

    async def keep_recovering(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self._recover(None)
            except StoreError as error:
                tell(recovery=type(error).__name__)

    async def _run(self, job: Job) -> dict[str, Any]:
        task = asyncio.ensure_future(self._stream(job) if job.is_streamed else self._ask(job))
        if job.leaves_after_s is not None:
            asyncio.get_running_loop().call_later(job.leaves_after_s, task.cancel)
        return {"told": "output", "output": as_record(await task)}

    async def _ask(self, job: Job) -> RunOutput:
        return await self._agent(job).run(
            job.contents[0],
            job.user,
            session_id=job.session,
            run_id=job.run_id,
            timeout=_limit(job),
        )

    async def _stream(self, job: Job) -> RunOutput:
        stream = self._agent(job).stream(
            job.contents[0],
            job.user,
            session_id=job.session,
            run_id=job.run_id,
            timeout=_limit(job),
        )
        async with aclosing(stream) as events:
            async for event in events:
                if isinstance(event, RunCompleted):
                    return event.output
                if isinstance(event, RunFailed):
                    raise event.error
        raise AssertionError("a stream without an ending")

    async def _add(self, job: Job) -> dict[str, Any]:
        messages = [Message.user(content) for content in job.contents]
        if len(messages) == 1:
            stored = [await self._memory.add(messages[0], job.user, session_id=job.session)]
        else:
            stored = await self._memory.extend(messages, job.user, session_id=job.session)
        return {"told": "added", "seqs": [message.seq for message in stored]}

    async def _clear(self, job: Job) -> dict[str, Any]:
        await self._agent(job).clear_memory(job.user, session_id=job.session)
        return {"told": "cleared"}

    async def _cancel(self, job: Job) -> dict[str, Any]:
        was_running = await self._agent(job).cancel_run(
            job.run_id, job.user, session_id=job.session
        )
        return {"told": "cancelling" if was_running else "nothing to cancel"}

    async def _recover(self, _: Job | None) -> dict[str, Any]:
        for agent in self._agents.values():
            for output in await agent.recover():
                tell(recovered=as_record(output))
        return {"told": "recovered"}

    def _agent(self, job: Job) -> Agent:
        return self._agents.get(kind_of(job.session), self._agents[""])


def as_record(output: RunOutput) -> dict[str, Any]:
    return {
        "run": [output.user_id, output.session_id, output.run_id],
        "content": output.content,
        "messages": [[m.seq, m.run_step, m.role, m.content] for m in output.messages],
    }


def _limit(job: Job) -> timedelta | None:
    return None if job.timeout_s is None else timedelta(seconds=job.timeout_s)


class _Telling(logging.Handler):
    """Tells the driver what was logged, by its template."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(log=f"{record.name}: {record.msg}"[:200], text=self.format(record)[-2000:])


async def open_memory(stack: AsyncExitStack, url: str, capacity: int | None) -> SQLMemory:
    """Return a memory; the server may be away just now."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _OPENS_FOR_S
    while True:
        try:
            return await stack.enter_async_context(
                SQLMemory.open(url, capacity=capacity, migrate=False)
            )
        except StoreUnavailableError:
            if loop.time() > give_up_at:
                raise
            await asyncio.sleep(0.1)


async def main(url: str, lease_s: float) -> None:
    """Do jobs until the input ends, then finish those that are under way."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Telling()])
    loop = asyncio.get_running_loop()
    jobs = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(jobs), sys.stdin)
    async with AsyncExitStack() as stack:
        roomy = await open_memory(stack, url, None)
        small = await open_memory(stack, url, SMALL_CAPACITY)
        desk = Desk(roomy, small, timedelta(seconds=lease_s))
        recovering = asyncio.create_task(desk.keep_recovering())
        tell(ready=os.getpid())
        working: set[asyncio.Task[None]] = set()
        while (line := await jobs.readline()).endswith(b"\n"):
            task = asyncio.create_task(desk.do(Job.of_line(line)))
            working.add(task)
            task.add_done_callback(working.discard)
        await asyncio.gather(*working)
        recovering.cancel()
        await asyncio.gather(recovering, return_exceptions=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver's to answer
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
