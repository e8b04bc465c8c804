"""The official client of A2A, and requests that it would not send."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import httpx
import jwt
from a2a.client import ClientConfig, create_client
from a2a.client.card_resolver import A2ACardResolver
from a2a.helpers import get_artifact_text
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)

from agno_sql.memory.sql import SQLMemory
from agno_sql.models.chat_model import ModelReply
from agno_sql.server import A2A, JWTAuth
from tests.agent.models import ScriptedModel, agent_of
from tests.support.http import DEADLINE_S, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from a2a.client import Client

    from agno_sql.agent.agent import Agent
    from tests.support.runner import Gate

WAYS: Final = [
    (binding, streams) for binding in ("JSONRPC", "HTTP+JSON") for streams in (False, True)
]
V1: Final = {"A2A-Version": "1.0"}
SECRET: Final = "a secret of the tests, long enough for HS256"  # noqa: S105
CHECKED: Final = {"issuer": "https://issuer.example", "audience": "agno"}
AUTH: Final = [JWTAuth.of_secret(SECRET, **CHECKED)]

WORKING, COMPLETED, FAILED, CANCELED = (
    TaskState.TASK_STATE_WORKING,
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_FAILED,
    TaskState.TASK_STATE_CANCELED,
)

_numbers = itertools.count(1)


def served_a2a(agent: Agent, **options: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """Serve *agent*; its clients take the address from ``of_server``, not from the card."""
    return served(agent, a2a=A2A(url="http://agent.example"), **options)


def as_user(user_id: str) -> dict[str, str]:
    """Return the headers of a user with a token."""
    said = {
        "sub": user_id,
        "iss": CHECKED["issuer"],
        "aud": CHECKED["audience"],
        "exp": datetime.now(UTC) + timedelta(minutes=5),
    }
    return bearer(jwt.encode(said, SECRET, algorithm="HS256"))


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


class HeldModel(ScriptedModel):
    """Says two words, and the rest when it is let go."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    async def stream(self, messages: Any, tools: Any) -> Any:
        self.shown.append(list(messages))
        yield "half "
        yield "an "
        await self._gate.wait()
        yield "answer"
        yield ModelReply("half an answer")


class Other:
    """Another agent, that talks to ours by the official client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def events(
        self,
        text: str,
        context_id: str = "",
        *,
        message_id: str | None = None,
        at_once: bool = False,
        **more: Any,
    ) -> AsyncIterator[StreamResponse]:
        """Say *text* and yield what comes back; *more* is of the message."""
        message = Message(
            message_id=message_id or f"m-{next(_numbers)}",
            context_id=context_id,
            role=Role.ROLE_USER,
            parts=[Part(text=text)],
        )
        for name, value in more.items():
            if isinstance(value, list):
                del message.parts[:]
                message.parts.extend(value)
            else:
                setattr(message, name, value)
        request = SendMessageRequest(
            message=message,
            configuration=SendMessageConfiguration(return_immediately=at_once),
        )
        async for event in self._client.send_message(request):
            yield event

    async def say(self, text: str, context_id: str = "", **more: Any) -> Task:
        """Say *text* and return the task when all that comes back has come."""
        task = Task()
        async for event in self.events(text, context_id, **more):
            merge(task, event)
        return task

    async def get(self, task_id: str, **more: Any) -> Task:
        return await self._client.get_task(GetTaskRequest(id=task_id, **more))

    async def cancel(self, task_id: str) -> Task:
        return await self._client.cancel_task(CancelTaskRequest(id=task_id))

    async def list(self, **wanted: Any) -> ListTasksResponse:
        return await self._client.list_tasks(ListTasksRequest(**wanted))

    async def subscribe(self, task_id: str) -> AsyncIterator[StreamResponse]:
        async for event in self._client.subscribe(SubscribeToTaskRequest(id=task_id)):
            yield event

    async def follow(self, task_id: str) -> None:
        """Read what ``subscribe`` tells to its end."""
        async for _ in self.subscribe(task_id):
            pass


@asynccontextmanager
async def of_server(
    url: str | httpx.URL,
    binding: str = "JSONRPC",
    headers: Mapping[str, str] = V1,
    *,
    streams: bool = False,
) -> AsyncIterator[Other]:
    """Yield a client of the server at *url*, which it speaks to in the way that *binding* names."""
    async with httpx.AsyncClient(timeout=DEADLINE_S, headers={**headers, **V1}) as http:
        card = await A2ACardResolver(http, str(url).rstrip("/")).get_agent_card()
        for interface in card.supported_interfaces:
            interface.url = f"{str(url).rstrip('/')}/a2a"
        config = ClientConfig(
            streaming=streams,
            httpx_client=http,
            supported_protocol_bindings=[binding],
            use_client_preference=True,
        )
        async with await create_client(card, config) as client:
            yield Other(client)


@asynccontextmanager
async def talking(
    agent: Agent, binding: str = "JSONRPC", *, streams: bool = False, **options: Any
) -> AsyncIterator[Other]:
    """Serve *agent* and talk to it; *options* are those of ``create_app``."""
    async with (
        served_a2a(agent, **options) as http,
        of_server(http.base_url, binding, streams=streams) as other,
    ):
        yield other


@asynccontextmanager
async def talking_to_two(
    url: str, gate: Gate, *, streams: bool = False, **of_agent: Any
) -> AsyncIterator[tuple[Other, Other]]:
    """Serve an agent by two servers on one database; the model of the first waits at *gate*."""
    async with (
        SQLMemory.open(url) as one,
        SQLMemory.open(url) as two,
        talking(agent_of(ScriptedModel(gate.think), one, **of_agent), streams=streams) as other,
        talking(agent_of(ScriptedModel(), two, **of_agent), streams=streams) as elsewhere,
    ):
        yield other, elsewhere


def merge(task: Task, event: StreamResponse) -> None:
    """Bring *task* up to date, as the protocol says that events do."""
    if event.HasField("task"):
        task.CopyFrom(event.task)
    elif event.HasField("status_update"):
        task.status.CopyFrom(event.status_update.status)
    else:
        new = event.artifact_update.artifact
        known = next((a for a in task.artifacts if a.artifact_id == new.artifact_id), None)
        if known is None:
            task.artifacts.append(new)
        elif event.artifact_update.append:
            known.parts.extend(new.parts)
        else:
            known.CopyFrom(new)


def answer(task: Task) -> str:
    """Return what the agent has answered."""
    (artifact,) = task.artifacts
    return get_artifact_text(artifact, delimiter="")


async def when_ended(other: Other, task_id: str) -> Task:
    """Return a task when it has ended."""
    async with asyncio.timeout(DEADLINE_S):
        while (task := await other.get(task_id)).status.state == WORKING:
            pass
    return task


async def entered(gate: Gate) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await gate.entered.wait()


def rpc(method: str, **params: Any) -> dict[str, Any]:
    """Return the body of a request by JSON-RPC."""
    return {"jsonrpc": "2.0", "id": "1", "method": method, "params": params}


def message(text: str = "hi", **more: Any) -> dict[str, Any]:
    """Return a message as JSON of protocol 1.0."""
    told = {"messageId": "m", "contextId": "alice", "role": "ROLE_USER", "parts": [{"text": text}]}
    return told | more
