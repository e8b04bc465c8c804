"""One run: from the user's message, through rounds of tool calls, to the answer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agno_sql.agent.calling import call
from agno_sql.agent.context import HookInput, RunContext, idempotency_key
from agno_sql.agent.events import RunEvent, TextDelta, ToolCalled, ToolReturned
from agno_sql.agent.output import RunOutput
from agno_sql.errors import MaxLoopsError, RunTimeoutError, StreamCutError
from agno_sql.memory.window import read_window, window
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.models.chat_model import ModelReply

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from agno_sql.agent.agent import Agent


@dataclass(slots=True, kw_only=True)
class Run:
    """The state of one run; its agent is shared, this is not.

    With *emit* the model's answers are streamed and events told as they happen.
    """

    agent: Agent
    user_id: str
    session_id: str
    run_id: str
    input: Message
    timeout: timedelta | None
    emit: Callable[[RunEvent], None] | None = None
    history: list[Message] = field(default_factory=list)
    stored: list[Message] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    task: asyncio.Task[Any] = field(init=False)

    async def execute(self) -> RunOutput:
        """Run to the end; return the answer, which is stored then."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine runs in one)
        self.task = task
        seconds = None if self.timeout is None else self.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._begin()
                return await self._answer()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise RunTimeoutError(f"run {self.run_id} took longer than {seconds:g} s") from error

    async def _begin(self) -> None:
        for hook in self.agent.pre_hooks:
            await call(hook, self._hook_input())
        await self._store([self.input])
        # What others add from now on belongs to the next run.
        self.history = await read_window(
            self.agent.memory,
            self.user_id,
            session_id=self.session_id,
            limit=self.agent.history_limit,
            before=self.stored[0].seq,
        )

    async def _answer(self) -> RunOutput:
        for round_number in range(1, self.agent.max_loops + 1):
            reply = await self._ask()
            self.usage += reply.usage
            if not reply.tool_calls:
                return await self._finish(reply.content)
            if round_number == self.agent.max_loops:
                break
            results = await self._call_tools(reply.tool_calls, round_number)
            # Call and results are stored by one append: no history ever holds half of them.
            asked = Message(
                role="assistant",
                content=reply.content,
                tool_calls=reply.tool_calls,
                run_id=self.run_id,
            )
            await self._store([asked, *results])
        raise MaxLoopsError(
            f"the model still called tools in its last of {self.agent.max_loops} calls; "
            "raise max_loops or make the task smaller",
            output=self._output(reply.content),
        )

    async def _ask(self) -> ModelReply:
        instructions = self.agent.instructions
        shown = [Message.system(instructions)] if instructions else []
        shown += [*self.history, *window(self.stored)]
        specs = [tool.spec for tool in self.agent.tools]
        if self.emit is None:
            return await self.agent.model.reply(shown, specs)
        async with aclosing(self.agent.model.stream(shown, specs)) as pieces:
            async for piece in pieces:
                if isinstance(piece, ModelReply):
                    return piece
                self.emit(TextDelta(piece))
        raise StreamCutError(f"{self.agent.model.name}: the stream ended without a reply")

    async def _finish(self, answer: str) -> RunOutput:
        for hook in self.agent.post_hooks:
            await call(hook, self._hook_input(answer))
        await self._store([Message(role="assistant", content=answer, run_id=self.run_id)])
        return self._output(answer)

    async def _call_tools(self, calls: tuple[ToolCall, ...], round_number: int) -> list[Message]:
        """Call all tools of a round at once; return their results in call order."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._call_tool(wanted, self._context(wanted, round_number, n)))
                for n, wanted in enumerate(calls)
            ]
        return [task.result() for task in tasks]

    async def _call_tool(self, wanted: ToolCall, context: RunContext) -> Message:
        self._tell(ToolCalled(wanted))
        result = Message(
            role="tool",
            content=await self._invoke(wanted, context),
            name=wanted.name,
            tool_call_id=wanted.id,
            run_id=self.run_id,
        )
        self._tell(ToolReturned(wanted, result))
        return result

    async def _invoke(self, wanted: ToolCall, context: RunContext) -> str:
        """Return the tool's result; whatever goes wrong becomes a text that the model can read."""
        tool = next((tool for tool in self.agent.tools if tool.name == wanted.name), None)
        if tool is None:
            known = ", ".join(tool.name for tool in self.agent.tools) or "none"
            return f"UnknownToolError: there is no tool {wanted.name!r}; the tools are: {known}"
        try:
            return await tool.invoke(wanted.arguments, context)
        except asyncio.CancelledError as error:
            if self.task.cancelling():
                raise
            return _told(error)  # the tool's own doing, not ours
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  (SystemExit too: a tool is not the process)
            return _told(error)

    async def _store(self, messages: list[Message]) -> None:
        self.stored += await self.agent.memory.extend(
            messages, self.user_id, session_id=self.session_id
        )

    def _tell(self, event: RunEvent) -> None:
        if self.emit is not None:
            self.emit(event)

    def _context(self, wanted: ToolCall, round_number: int, position: int) -> RunContext:
        return RunContext(
            user_id=self.user_id,
            session_id=self.session_id,
            run_id=self.run_id,
            tool_call_id=wanted.id,
            idempotency_key=idempotency_key(
                self.user_id,
                self.session_id,
                self.run_id,
                round_number=round_number,
                position=position,
            ),
        )

    def _hook_input(self, output: str | None = None) -> HookInput:
        return HookInput(
            user_id=self.user_id,
            session_id=self.session_id,
            run_id=self.run_id,
            input=self.input.content,
            output=output,
        )

    def _output(self, content: str) -> RunOutput:
        return RunOutput(
            content=content,
            user_id=self.user_id,
            session_id=self.session_id,
            run_id=self.run_id,
            model=self.agent.model.name,
            messages=tuple(self.stored),
            usage=self.usage,
        )


def _told(error: BaseException) -> str:
    words = ""
    with suppress(Exception):  # an exception's own __str__ may fail
        words = str(error)
    return f"{type(error).__name__}: {words}".rstrip(": ")
