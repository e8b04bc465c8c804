"""Every error that agno_sql raises on purpose.

    AgnoSQLError
    ├── InvalidInputError (ValueError)       the caller's mistake; nothing was stored
    │   ├── InvalidUserIdError
    │   ├── InvalidSessionIdError
    │   ├── InvalidRunIdError
    │   ├── InvalidMessageError
    │   ├── InvalidOptionError               an argument or setting out of its bounds
    │   ├── InvalidToolError                 a tool that can't be offered to a model
    │   ├── RunIdReusedError                 a run_id that named another input or agent
    │   └── InvalidDatabaseURLError
    ├── StoreError                           the database refused
    │   ├── StoreUnavailableError            nothing was stored; retryable
    │   ├── OutcomeUnknownError              the connection broke at commit: read before you retry
    │   ├── SchemaOutOfDateError             names the command that upgrades
    │   └── CorruptRecordError               a row that can't be decoded; names it
    ├── ModelError                           the model provider refused or failed
    │   ├── ModelUnavailableError            unreachable or a server error; retryable
    │   ├── ModelTimeoutError (TimeoutError) retryable
    │   ├── RateLimitError                   retryable, carries retry_after
    │   ├── ModelAuthenticationError
    │   ├── ModelRequestError                the provider found the request wrong
    │   │   └── ContextTooLongError
    │   ├── ContentFilterError
    │   └── BadReplyError                    a reply that can't be used; retryable
    │       └── StreamCutError               the stream ended before its finish_reason
    ├── RunError                             a run that ended without an answer
    │   ├── MaxLoopsError                    carries the partial output
    │   ├── RunTimeoutError (TimeoutError)
    │   ├── ConversationBusyError            another run has the conversation; retryable
    │   ├── RunLostError                     another took the run over, or its messages are gone
    │   ├── RunInterruptedError              its process stops: the run can be gone on with
    │   ├── RunFailedError                   what a run that had failed before is answered with
    │   ├── RunCancelledError                somebody else cancelled the run
    │   └── RejectedError                    raised by hooks
    │       ├── InputRejectedError           nothing was stored
    │       └── OutputRejectedError          the answer was not stored
    └── MissingExtraError (ImportError)      names the command that installs it

Each carries ``code``, a stable word for logs and interfaces, and ``retryable``: whether the same
call may succeed later without a change. What it means for an HTTP status or an exit code is
decided at those edges.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import timedelta


class AgnoSQLError(Exception):
    """Whatever agno_sql raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: bool = False


class InvalidInputError(AgnoSQLError, ValueError):
    """An argument breaks a rule that the message names. Nothing was stored."""

    code = "invalid_input"


class InvalidUserIdError(InvalidInputError):
    """A user_id is not 1 to 255 characters without control characters and lone surrogates."""

    code = "invalid_user_id"


class InvalidSessionIdError(InvalidInputError):
    """A session_id is not 1 to 255 characters without control characters and lone surrogates."""

    code = "invalid_session_id"


class InvalidRunIdError(InvalidInputError):
    """A run_id is not 1 to 128 visible ASCII characters."""

    code = "invalid_run_id"


class InvalidMessageError(InvalidInputError):
    """A message has an unknown role, a content that is no string, or fields that do not fit."""

    code = "invalid_message"


class InvalidOptionError(InvalidInputError):
    """An argument or setting is out of its bounds."""

    code = "invalid_option"


class InvalidToolError(InvalidInputError):
    """A tool can't be offered to a model: its name, signature or a duplicate."""

    code = "invalid_tool"


class RunIdReusedError(InvalidInputError):
    """A run of this id exists in the conversation, for another input or of another agent."""

    code = "run_id_reused"


class InvalidDatabaseURLError(InvalidInputError):
    """A database URL can't be read or names a driver that is not supported."""

    code = "invalid_database_url"


class StoreError(AgnoSQLError):
    """The database refused; nothing was stored."""

    code = "store_error"


class StoreUnavailableError(StoreError):
    """The database could not be reached or was too busy; nothing was stored."""

    code = "store_unavailable"
    retryable = True


class OutcomeUnknownError(StoreError):
    """The connection broke while a commit was under way: it may or may not have happened."""

    code = "outcome_unknown"


class SchemaOutOfDateError(StoreError):
    """The tables are missing or not of this version; the message names the command."""

    code = "schema_out_of_date"


class CorruptRecordError(StoreError):
    """A stored row can't be decoded; the message names its key."""

    code = "corrupt_record"


class ModelError(AgnoSQLError):
    """The model's provider refused or failed."""

    code = "model_error"


class ModelUnavailableError(ModelError):
    """The provider could not be reached or answered with a server error."""

    code = "model_unavailable"
    retryable = True


class ModelTimeoutError(ModelError, TimeoutError):
    """The provider did not answer in time."""

    code = "model_timeout"
    retryable = True


class RateLimitError(ModelError):
    """The provider asks for a pause; ``retry_after`` is its length where it said one."""

    code = "rate_limited"
    retryable = True

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelAuthenticationError(ModelError):
    """The provider does not accept the API key."""

    code = "model_authentication"


class ModelRequestError(ModelError):
    """The provider found the request wrong."""

    code = "model_request"


class ContextTooLongError(ModelRequestError):
    """The conversation does not fit into the model's context: lower ``history_limit``."""

    code = "context_too_long"


class ContentFilterError(ModelError):
    """The provider's content filter stopped the request or the reply."""

    code = "content_filter"


class BadReplyError(ModelError):
    """The provider answered with something that is no usable reply."""

    code = "bad_reply"
    retryable = True


class StreamCutError(BadReplyError):
    """The provider's stream ended before it said why."""

    code = "stream_cut"


class RunError(AgnoSQLError):
    """A run ended without an answer."""

    code = "run_error"


class MaxLoopsError(RunError):
    """The model still asked for tools in its last allowed call; ``output`` is what there is."""

    code = "max_loops"

    def __init__(self, message: str, *, output: Any) -> None:
        super().__init__(message)
        self.output = output


class RunTimeoutError(RunError, TimeoutError):
    """The run took longer than its ``timeout``."""

    code = "run_timeout"
    retryable = True


class ConversationBusyError(RunError):
    """Another run had the conversation for all of ``busy_timeout``; no model was asked."""

    code = "conversation_busy"
    retryable = True


class RunLostError(RunError):
    """The run is no longer this process's: nothing more was stored.

    Another process took it over when its lease had expired, or its conversation was cleared.
    """

    code = "run_lost"


class RunInterruptedError(RunError):
    """The process that worked on the run stops; the run goes on by ``recover``, or by its run_id.

    Also what is stored of an interrupted run that the next one of its conversation has closed.
    """

    code = "run_interrupted"
    retryable = True


class RunFailedError(RunError):
    """The run of this run_id failed before; use another run_id to try again.

    ``error_type`` is the name of the error's class.
    """

    code = "run_failed"

    def __init__(self, message: str, *, error_type: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class RunCancelledError(RunError):
    """The run was cancelled by somebody else than the task that waited for it."""

    code = "run_cancelled"


class RejectedError(RunError):
    """A hook rejected what it was shown."""

    code = "rejected"


class InputRejectedError(RejectedError):
    """A pre hook rejected the input: nothing was stored."""

    code = "input_rejected"


class OutputRejectedError(RejectedError):
    """A post hook rejected the answer: it was not stored."""

    code = "output_rejected"


class MissingExtraError(AgnoSQLError, ImportError):
    """A feature needs an extra that is not installed; the message names the command."""

    code = "missing_extra"

    def __init__(self, extra: str, *, purpose: str) -> None:
        super().__init__(f"{purpose} needs an extra: pip install 'agno-sql[{extra}]'")
        self.extra = extra

    @classmethod
    @contextmanager
    def unless(cls, extra: str, modules: Collection[str], *, purpose: str) -> Iterator[None]:
        """Raise it if what is imported within is missing and of the *modules* of the *extra*."""
        try:
            yield
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] not in modules:
                raise
            raise cls(extra, purpose=purpose) from missing
