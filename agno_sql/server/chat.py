"""``POST /chat``: say something to the agent."""

from typing import Annotated, Any, Final, Self
from uuid import uuid4

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agno_sql.agent.output import RunOutput
from agno_sql.errors import InvalidRunIdError
from agno_sql.ids import DEFAULT_SESSION, run_id_of
from agno_sql.message import Usage, encodable
from agno_sql.runs import RunKey
from agno_sql.server.connected import while_connected
from agno_sql.server.openapi import problems
from agno_sql.server.problems import problem_response
from agno_sql.server.served import RunId, SessionId, TheCaller, TheServed, UserId
from agno_sql.server.sse import EVENT_SCHEMA, event_stream

router: Final = APIRouter(tags=["chat"])

_EVENT_STREAM: Final = "text/event-stream"


class ChatRequest(BaseModel):
    """What a user says."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId | None = Field(None, description="Required unless the token names the user.")
    message: str = Field(min_length=1)
    session_id: SessionId = Field(DEFAULT_SESSION, description="Which of the user's conversations.")
    run_id: RunId | None = Field(
        None,
        description="Makes a repetition safe: the same `run_id` again returns the same answer.",
    )
    stream: StrictBool = Field(
        default=False, description=f"Answer by server-sent events, as `Accept: {_EVENT_STREAM}`."
    )


class TokenUsage(BaseModel):
    """Tokens that the model counted."""

    input_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """Return *usage* as JSON."""
        return cls(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)


class ChatReply(BaseModel):
    """The agent's answer."""

    user_id: str
    reply: str
    run_id: str
    session_id: str
    usage: TokenUsage


@router.post(
    "/chat",
    summary="Say something to the agent",
    response_model=ChatReply,
    responses=problems(401, 403, 409, 413, 415, 422, 502, 503, 504)
    | {
        200: {
            "description": "The answer; or its events: `run`, then `text`, `tool_call` and "
            "`tool_result` as they come, and last `done` with the answer, or `error` with a problem.",
            "content": {_EVENT_STREAM: {"itemSchema": EVENT_SCHEMA}},
        }
    },
)
async def chat(
    asked: ChatRequest,
    request: Request,
    caller: TheCaller,
    served: TheServed,
    idempotency_key: Annotated[
        str | None, Header(description="The `run_id`; one that is none by its form is hashed.")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Answer the message and store both.

    The run belongs to the server: a client that goes away loses nothing, and gets the answer when
    it asks again with the same `run_id`, also while the run is still at work.
    """
    run_id = _run_id(asked.run_id, idempotency_key)
    key = RunKey(caller.acting_for(asked.user_id), asked.session_id, run_id or uuid4().hex)
    streams = asked.stream or _EVENT_STREAM in accept.lower()
    run = served.ongoing.begin(key, asked.message, streams=streams)
    if streams:
        return StreamingResponse(
            event_stream(run, _told), media_type=_EVENT_STREAM, headers={"x-accel-buffering": "no"}
        )
    try:
        output = await while_connected(run.answer(), request)
    except Exception as error:  # noqa: BLE001  (whoever asks again needs the run_id)
        return problem_response(error, run_id=key.run_id)
    if output is None:
        return Response()  # to nobody
    return Response(_reply(output).model_dump_json(), media_type="application/json")


def _run_id(named: str | None, key: str | None) -> str | None:
    if key is None:
        return named
    run_id = run_id_of(key)
    if not key or named not in (None, run_id):
        raise InvalidRunIdError("Idempotency-Key must not be empty, nor differ from the run_id")
    return run_id


def _reply(output: RunOutput) -> ChatReply:
    return ChatReply(
        user_id=output.user_id,
        reply=encodable(output.content),
        run_id=output.run_id,
        session_id=output.session_id,
        usage=TokenUsage.of(output.usage),
    )


def _told(output: RunOutput) -> dict[str, Any]:
    return _reply(output).model_dump()
