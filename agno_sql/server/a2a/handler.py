"""The operations of A2A, on the runs of an agent."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import uuid4

from a2a.server.request_handlers import RequestHandler
from a2a.types import ListTasksResponse, Task, TaskState
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    UnsupportedOperationError,
)
from a2a.utils.proto_utils import validate_proto_required_fields
from a2a.utils.task import apply_history_length, validate_history_length, validate_page_size

from agno_sql.agent.events import RunCompleted, TextDelta, ToolCalled
from agno_sql.errors import RunIdReusedError
from agno_sql.ids import run_id_of
from agno_sql.message import Message
from agno_sql.runs import NewRun, RunFilter, RunKey, StoredRun
from agno_sql.server import cursor as cursors
from agno_sql.server.a2a import asked
from agno_sql.server.a2a.failures import told_as_a2a
from agno_sql.server.a2a.tasks import (
    STATES,
    answer_event,
    no_such_task,
    read_task_id,
    status_event,
    task_of,
)
from agno_sql.server.connected import while_connected
from agno_sql.server.sse import KEEP_ALIVE_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from datetime import datetime

    from a2a.server.context import ServerCallContext
    from a2a.server.events import Event
    from a2a.types import (
        CancelTaskRequest,
        GetExtendedAgentCardRequest,
        GetTaskRequest,
        ListTasksRequest,
        SendMessageRequest,
        SubscribeToTaskRequest,
    )
    from starlette.requests import Request

    from agno_sql.runs import RunRecord, RunStatus
    from agno_sql.server.a2a.owner import Owner
    from agno_sql.server.ongoing import OngoingRun
    from agno_sql.server.served import Served

_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.25
_CANCEL_WITHIN_S: Final = 10.0
_STATUSES: Final[dict[TaskState, RunStatus]] = {state: status for status, state in STATES.items()}


class Tasks(RequestHandler):
    """Answers messages by runs, which are the tasks.

    A task is told only once its run is stored, so whoever has its id finds it, in any process.
    Each call comes with its ``request`` in the context's state, and that with its ``owner``.
    """

    def __init__(self, served: Served) -> None:
        self._agent = served.agent
        self._memory = served.memory
        self._log = served.memory.run_log
        self._ongoing = served.ongoing

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task:
        """Answer a message; the task has ended, unless the client wants it at once."""
        with told_as_a2a():
            request = _request(context)
            stored, run, context_id = await self._begun(params, request.state.owner)
            if run is not None and not params.configuration.return_immediately:
                stored = await self._answered(run, request)
            return apply_history_length(_task(stored, context_id), params.configuration)

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """Answer a message, and tell how: the task, the answer as it comes, how it ended."""
        with told_as_a2a():
            stored, run, context_id = await self._begun(params, _request(context).state.owner)
            task = _task(stored if run is None else _as_begun(stored), context_id)
            yield apply_history_length(task, params.configuration)
            if run is not None:
                async with aclosing(self._events(run, task)) as events:
                    async for event in events:
                        yield event

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task:
        """Tell what became of a task."""
        with told_as_a2a():
            validate_proto_required_fields(params)
            validate_history_length(params)
            stored, context_id = await self._found(params.id, _request(context).state.owner)
            return apply_history_length(_task(stored, context_id), params)

    async def on_list_tasks(
        self, params: ListTasksRequest, context: ServerCallContext
    ) -> ListTasksResponse:
        """List the owner's tasks, the latest change first."""
        with told_as_a2a():
            validate_history_length(params)
            size = DEFAULT_LIST_TASKS_PAGE_SIZE
            if params.HasField("page_size"):
                validate_page_size(params.page_size)
                size = params.page_size
            owner: Owner = _request(context).state.owner
            user_id, wanted = self._wanted(params, owner)
            listed = ListTasksResponse(page_size=size)
            if params.status and params.status not in _STATUSES:
                return listed  # no run is ever in that state
            after = cursors.run(params.page_token) if params.page_token else None
            records = await self._memory.runs(user_id, wanted, limit=size + 1, after=after)
            listed.total_size = await self._memory.count_runs(user_id, wanted)
            if len(records) > size:
                listed.next_page_token = cursors.of_run(records[size - 1].place)
            for record in records[:size]:
                listed.tasks.append(await self._listed(record, owner, params))
            return listed

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task:
        """Cancel a task that is at work, in whatever process."""
        with told_as_a2a():
            validate_proto_required_fields(params)
            stored, context_id = await self._found(params.id, _request(context).state.owner)
            if stored.record.status != "running":
                raise TaskNotCancelableError
            return _task(await self._cancelled(stored.record), context_id)

    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """Tell how a task that is at work goes on; from its beginning, if it is in this process."""
        with told_as_a2a():
            validate_proto_required_fields(params)
            stored, context_id = await self._found(params.id, _request(context).state.owner)
            if stored.record.status != "running":
                raise UnsupportedOperationError("the task has ended")
            run = self._ongoing.begin(_key(stored.record), stored.messages[0].content, streams=True)
            task = _task(stored, context_id)
            yield task
            async with aclosing(self._events(run, task)) as events:
                async for event in events:
                    yield event

    async def _refuse_push(
        self,
        params: Any,  # noqa: ARG002  (the SDK's signature)
        context: ServerCallContext,
    ) -> NoReturn:
        _request(context)
        raise PushNotificationNotSupportedError

    on_create_task_push_notification_config = _refuse_push
    on_get_task_push_notification_config = _refuse_push
    on_list_task_push_notification_configs = _refuse_push
    on_delete_task_push_notification_config = _refuse_push

    async def on_get_extended_agent_card(
        self,
        params: GetExtendedAgentCardRequest,  # noqa: ARG002  (the SDK's signature)
        context: ServerCallContext,
    ) -> NoReturn:
        """Refuse: everybody sees the same card."""
        _request(context)
        raise UnsupportedOperationError("there is no extended card")

    async def _begun(
        self, params: SendMessageRequest, owner: Owner
    ) -> tuple[StoredRun, OngoingRun | None, str]:
        """Return the stored run that answers a message, the run at work on it, and its context."""
        validate_proto_required_fields(params)
        validate_history_length(params.configuration)
        asked.check(params.configuration)
        text = asked.text_of(params.message)
        if params.message.task_id:
            await self._refuse_to_go_on(params, owner)
        context_id = params.message.context_id or str(uuid4())
        user_id, session_id = owner.conversation(context_id)
        key = RunKey(user_id, session_id, run_id_of(params.message.message_id))
        if (stored := await self._log.find(key)) is not None:
            self._check_is_same(stored, text)  # before a run begins that could only fail
            is_at_work = stored.record.status == "running"
            run = self._ongoing.begin(key, text, streams=True) if is_at_work else None
            return stored, run, context_id
        run = self._ongoing.begin(key, text, streams=True)
        stored = await self._stored(run)
        self._check_is_same(stored, text)
        return stored, run, context_id

    async def _refuse_to_go_on(self, params: SendMessageRequest, owner: Owner) -> NoReturn:
        _, context_id = await self._found(params.message.task_id, owner)
        if params.message.context_id not in ("", context_id):
            raise InvalidParamsError("the task is of another contextId")
        raise UnsupportedOperationError(
            "a task is one message and its answer: go on with its contextId, without taskId"
        )

    def _check_is_same(self, stored: StoredRun, text: str) -> None:
        new = NewRun(
            agent_id=self._agent.id, model=self._agent.model.name, input=Message.user(text)
        )
        if not new.is_of(stored.record):
            raise RunIdReusedError("messageId is that of another message of this contextId")

    async def _stored(self, run: OngoingRun) -> StoredRun:
        """Return *run* as soon as it is stored; raise what keeps it from that."""
        for pause in _pauses():
            has_ended = run.has_ended
            if (stored := await self._log.find(run.key)) is not None:
                return stored
            if has_ended:
                await run.answer()
                no_such_task()  # it was deleted meanwhile
            await asyncio.sleep(pause)
        raise AssertionError("pauses have no end")

    async def _answered(self, run: OngoingRun, request: Request) -> StoredRun:
        """Return *run* when it has ended, or its client is gone; raise what interrupted it."""
        failure: Exception | None = None
        try:
            if await while_connected(run.answer(), request) is None:
                return await self._found_run(run.key)
        except Exception as error:  # noqa: BLE001  (a run that failed is a task that failed)
            failure = error
        return await self._ended(run.key, failure)

    async def _ended(self, key: RunKey, failure: Exception | None) -> StoredRun:
        """Return a run that has ended as it is stored; raise *failure* if it is not."""
        stored = await self._log.find(key)
        if failure is not None and (stored is None or stored.record.status == "running"):
            raise failure
        return stored or no_such_task()

    async def _events(self, run: OngoingRun, task: Task) -> AsyncGenerator[Event, None]:
        """Yield what happens in *run* from its beginning on, and how it ends."""
        said, failure = "", None
        try:
            async for event in run.follow(pause_s=KEEP_ALIVE_S):
                match event:
                    case TextDelta(text):
                        yield answer_event(task, text, append=bool(said))
                        said += text
                    case ToolCalled():
                        said = ""  # what came before a tool call is not the answer
                    case RunCompleted(output):
                        is_told = said != "" and said == output.content
                        rest = "" if is_told else output.content
                        yield answer_event(task, rest, append=is_told, is_last=True)
        except Exception as error:  # noqa: BLE001  (a run that failed is a task that failed)
            failure = error
        yield status_event(task, (await self._ended(run.key, failure)).record)

    async def _cancelled(self, record: RunRecord) -> StoredRun:
        """Return a run when it is cancelled, or as it is when that takes too long."""
        key = _key(record)
        await self._agent.cancel_run(key.run_id, key.user_id, session_id=key.session_id)
        # Another process sees it when it renews its lease next.
        give_up_at = asyncio.get_running_loop().time() + _CANCEL_WITHIN_S
        for pause in _pauses():
            stored = await self._found_run(key)
            if stored.record.status != "running":
                break
            if asyncio.get_running_loop().time() >= give_up_at:
                return stored
            await asyncio.sleep(pause)
        if stored.record.status != "cancelled":
            raise TaskNotCancelableError
        return stored

    async def _found(self, task_id: str, owner: Owner) -> tuple[StoredRun, str]:
        """Return the run of a task, and its context; another owner's is no task."""
        context_id, run_id = read_task_id(task_id)
        stored = await self._found_run(RunKey(*owner.conversation(context_id), run_id))
        if stored.record.agent_id != self._agent.id:
            no_such_task()
        return stored, context_id

    async def _found_run(self, key: RunKey) -> StoredRun:
        return await self._log.find(key) or no_such_task()

    def _wanted(self, params: ListTasksRequest, owner: Owner) -> tuple[str, RunFilter]:
        user_id, session_id = owner.user_id, None
        if params.context_id:
            user_id, session_id = owner.conversation(params.context_id)
        if user_id is None:
            raise InvalidParamsError("contextId says whose tasks, as there is no authentication")
        since: datetime | None = None
        if params.HasField("status_timestamp_after"):
            since = params.status_timestamp_after.ToDatetime(UTC)
        return user_id, RunFilter(
            agent_id=self._agent.id,
            session_id=session_id,
            status=_STATUSES.get(params.status),
            changed_since=since,
        )

    async def _listed(self, record: RunRecord, owner: Owner, params: ListTasksRequest) -> Task:
        context_id = owner.context_of(record.user_id, record.session_id)
        stored = None
        if params.include_artifacts or params.history_length:
            stored = await self._log.find(_key(record))
        task = task_of(record, stored.messages if stored else (), context_id)
        if not params.include_artifacts:
            task.ClearField("artifacts")
        if not params.history_length:
            task.ClearField("history")
        return apply_history_length(task, params)


def _request(context: ServerCallContext) -> Request:
    request: Request = context.state["request"]
    request.state.is_read = True
    return request


def _key(record: RunRecord) -> RunKey:
    return RunKey(record.user_id, record.session_id, record.run_id)


def _task(stored: StoredRun, context_id: str) -> Task:
    return task_of(stored.record, stored.messages, context_id)


def _as_begun(stored: StoredRun) -> StoredRun:
    """Return a run as it was when it began: what it has come to meanwhile is told by events."""
    record = replace(stored.record, status="running", finished_at=None)
    return StoredRun(record, stored.messages[:1])


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE_S)
