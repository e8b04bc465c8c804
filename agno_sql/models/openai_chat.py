"""Models behind the Chat Completions API: OpenAI's own and compatible servers."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import sys
import weakref
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from agno_sql.errors import (
    BadReplyError,
    InvalidOptionError,
    ModelAuthenticationError,
    ModelError,
    ModelTimeoutError,
    ModelUnavailableError,
    StreamCutError,
)
from agno_sql.message import encodable
from agno_sql.models.openai_errors import HOW_TO_GIVE_A_KEY, http_errors, model_error
from agno_sql.models.openai_wire import (
    Draft,
    read_reply,
    reading,
    wire_message,
    wire_tool,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from openai import AsyncOpenAI, AsyncStream

    from agno_sql.message import Message
    from agno_sql.models.chat_model import ModelReply, ToolSpec

    _Errors = tuple[type[Exception], ...]
    _KeptClient = tuple[AsyncGenerator[AsyncOpenAI, None], AsyncOpenAI]

_PLACEHOLDER_KEY: Final = "no-key-needed"
_SENDABLE_KEY: Final = re.compile("[\x21-\x7e]+")
_LIKE_A_KEY: Final = re.compile(r"\bsk-[\w*-]{4,}")
_MAX_ERROR_CHARACTERS: Final = 500


class OpenAIChat:
    """A model of OpenAI, or of a server that speaks its Chat Completions API (vLLM, Ollama).

    Safe for any number of concurrent calls, and for one event loop after another: each loop has
    its own HTTP client, made at its first call. Making an OpenAIChat neither imports ``openai``
    nor connects. Only options that are set are sent. What a provider can't take is replaced in
    what is sent, never in the stored message: lone surrogates become U+FFFD, and characters that
    are illegal in a name become an underscore.

    Args:
        model: The model's name, as its provider knows it.
        base_url: A compatible server, for example ``http://127.0.0.1:11434/v1``; by default
            OpenAI (or ``OPENAI_BASE_URL``, for a gateway to it).
        api_key: By default ``OPENAI_API_KEY``. A compatible server may need none.
        temperature: 0 and above.
        max_tokens: The most tokens that a reply may have, 1 and above.
        seed: Asks for reproducible replies, as far as the provider can.
        response_format: As the API takes it, for example ``{"type": "json_object"}``.
        parallel_tool_calls: Whether one reply may call several tools; sent only along with tools.
        timeout: The longest silence to bear: to connect, and between two pieces of a reply. It
            does not bound a whole reply that keeps coming.
        max_retries: How often a failed request is sent again before its error is raised. A
            stream that has begun is not sent again.
        extra_body: More fields of the request, for what only your server knows.

    Raises:
        InvalidOptionError: An option is out of its bounds; the message names it.
    """

    def __init__(  # noqa: PLR0913 - options of one API, all by keyword
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        timeout: timedelta = timedelta(seconds=60),
        max_retries: int = 2,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        for valid, option, rule in (
            (isinstance(model, str) and model.strip(), "model", "a non-empty string"),
            (base_url is None or _is_http_url(base_url), "base_url", "an http or https URL"),
            (
                api_key is None or _is_sendable(api_key),
                "api_key",
                "1 or more visible ASCII letters",
            ),
            (temperature is None or _is_number(temperature, float), "temperature", "0 or above"),
            (max_tokens is None or _is_number(max_tokens, from_=1), "max_tokens", "1 or above"),
            (seed is None or _is_number(seed, from_=None), "seed", "a whole number"),
            (_is_optional(response_format, Mapping), "response_format", "a mapping"),
            (_is_optional(parallel_tool_calls, bool), "parallel_tool_calls", "True or False"),
            (
                isinstance(timeout, timedelta) and timeout > timedelta(),
                "timeout",
                "a timedelta > 0",
            ),
            (_is_number(max_retries), "max_retries", "0 or above"),
            (_is_optional(extra_body, Mapping), "extra_body", "a mapping"),
        ):
            if not valid:
                raise InvalidOptionError(f"{option} must be {rule}")
        self._model = model
        self._base_url = base_url
        self._api_key = api_key
        self._timeout = timeout
        self._max_retries = max_retries
        self._parallel_tool_calls = parallel_tool_calls
        # OpenAI's newer models refuse max_tokens; most compatible servers know nothing else.
        limit = "max_completion_tokens" if self._is_openai else "max_tokens"
        options = {
            "temperature": temperature,
            limit: max_tokens,
            "seed": seed,
            "response_format": response_format and dict(response_format),
            "extra_body": extra_body and dict(extra_body),
        }
        self._options = {name: value for name, value in options.items() if value is not None}
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _KeptClient]
        self._clients = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        if self._base_url is None:
            return f"OpenAIChat({self._model!r})"
        url = urlsplit(self._base_url)
        shown_url = url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl()
        return f"OpenAIChat({self._model!r}, base_url={shown_url!r})"

    @property
    def name(self) -> str:
        """The model's name, as its provider knows it."""
        return self._model

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> ModelReply:
        """Return the model's answer to *messages*, oldest first, instructions included.

        Raises:
            ModelError: The branch of the tree in ``agno_sql.errors`` that fits what happened,
                after ``max_retries`` where another try could help.
        """
        client = await self._client()
        with self._translated_errors(client):
            answer = await client.chat.completions.create(**self._request(messages, tools))
        with reading(self._model, answer):
            choice = answer.choices[0]
            return read_reply(self._model, choice.finish_reason, choice.message, answer.usage)

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ModelReply, None]:
        """Yield pieces of the answer's text as they arrive, and last the whole ModelReply.

        Closing the iterator, or cancelling the task that reads it, closes the HTTP response.

        Raises:
            StreamCutError: The stream ended or broke before the model said that it is done.
            ModelError: As for ``reply``.
        """
        client = await self._client()
        request = self._request(messages, tools)
        request |= {"stream": True, "stream_options": {"include_usage": True}}
        with self._translated_errors(client):
            chunks = await client.chat.completions.create(**request)
        draft = Draft()
        try:
            while (chunk := await self._next(client, chunks)) is not None:
                with reading(self._model, chunk):
                    piece = draft.add(chunk)
                if piece:
                    yield piece
        finally:
            await chunks.close()
        if draft.finish_reason is None:
            raise StreamCutError(f"model {self._model!r}: the stream ended without a finish_reason")
        with reading(self._model, draft):
            reply = read_reply(self._model, draft.finish_reason, draft, draft.usage)
        if reply.content and not draft.content:
            yield reply.content
        yield reply

    async def aclose(self) -> None:
        """Close this event loop's connections. A later call opens new ones.

        Not needed under ``asyncio.run``, which does it at its end.
        """
        kept = self._clients.pop(asyncio.get_running_loop(), None)
        if kept is not None:
            await kept[0].aclose()

    @property
    def _is_openai(self) -> bool:
        host = urlsplit(self._base_url or "").hostname or ""
        return self._base_url is None or host == "openai.com" or host.endswith(".openai.com")

    async def _client(self) -> AsyncOpenAI:
        if "openai" not in sys.modules:
            # Takes more than a second, for which the loop's other tasks need not stand still.
            await asyncio.to_thread(import_module, "openai")
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            for known in self._clients.keyrefs():
                if (ended := known()) is not None and ended.is_closed():
                    self._clients.pop(ended, None)
            # Suspends nowhere, so no other task of the loop can get here in between.
            keeper = self._keeper()
            self._clients[loop] = (keeper, await anext(keeper))
        return self._clients[loop][1]

    async def _keeper(self) -> AsyncGenerator[AsyncOpenAI, None]:
        # asyncio.run closes the async generators that are left at its end: the connections are
        # closed while their loop still runs, even where nobody calls aclose.
        client = self._new_client()
        try:
            yield client
        finally:
            await client.close()

    def _new_client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI  # noqa: PLC0415 - slow to import, see _client

        key = self._api_key or os.environ.get("OPENAI_API_KEY")
        if not key and self._is_openai:
            raise ModelAuthenticationError(
                f"model {self._model!r} needs an API key: {HOW_TO_GIVE_A_KEY}"
            )
        if key and not _is_sendable(key):
            # Refused here, as the HTTP library's own error would show the key.
            raise ModelAuthenticationError(
                f"OPENAI_API_KEY has blanks or other characters that no key has: {HOW_TO_GIVE_A_KEY}"
            )
        return AsyncOpenAI(
            api_key=key or _PLACEHOLDER_KEY,
            base_url=self._base_url,
            timeout=self._timeout.total_seconds(),
            max_retries=self._max_retries,
        )

    def _request(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        request = {
            "model": self._model,
            "messages": [wire_message(message) for message in messages],
            **self._options,
        }
        if tools:
            request["tools"] = [wire_tool(tool) for tool in tools]
            # OpenAI refuses this one where there are no tools.
            if self._parallel_tool_calls is not None:
                request["parallel_tool_calls"] = self._parallel_tool_calls
        return request

    async def _next(self, client: AsyncOpenAI, chunks: AsyncStream[Any]) -> Any:
        with self._translated_errors(client, cut=StreamCutError):
            return await anext(chunks, None)

    @contextmanager
    def _translated_errors(
        self, client: AsyncOpenAI, cut: type[ModelError] = ModelUnavailableError
    ) -> Iterator[None]:
        """Raise what ``openai`` raises as ours; *cut* is the error of a broken connection."""
        import openai  # noqa: PLC0415 - slow to import, see _client

        def told(what: object) -> str:
            text = str(what).replace(client.api_key, "[key]")
            text = encodable(_LIKE_A_KEY.sub("[key]", text))
            return f"model {self._model!r}: {text[:_MAX_ERROR_CHARACTERS]}"

        late: _Errors = (openai.APITimeoutError, *http_errors("TimeoutException"))
        broken: _Errors = (openai.APIConnectionError, *http_errors("HTTPError"))
        try:
            yield
        except late as error:
            raise ModelTimeoutError(told(f"no answer within {self._timeout}")) from error
        except broken as error:
            raise cut(told(f"the connection failed: {error.__cause__ or error}")) from error
        except openai.APIError as error:
            raise model_error(error, told) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BadReplyError(told(f"the reply is not JSON: {error}")) from error
        except openai.OpenAIError as error:
            raise ModelError(told(error)) from error


def _is_http_url(url: object) -> bool:
    with suppress(ValueError):
        parts = urlsplit(url) if isinstance(url, str) else None
        return parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)
    return False


def _is_sendable(key: object) -> bool:
    return isinstance(key, str) and _SENDABLE_KEY.fullmatch(key) is not None


def _is_number(value: Any, of: type = int, from_: int | None = 0) -> bool:
    is_number = isinstance(value, (int, of)) and not isinstance(value, bool)
    return is_number and -math.inf < value < math.inf and (from_ is None or value >= from_)


def _is_optional(value: object, kind: type) -> bool:
    return value is None or isinstance(value, kind)
