"""What goes wrong, as errors of A2A. What a client is told is decided in ``server/problems.py``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from a2a.utils.errors import A2AError, InternalError, InvalidParamsError, TaskNotFoundError

from agno_sql.errors import InputRejectedError, InvalidInputError
from agno_sql.server.problems import problem_of
from agno_sql.server.refusals import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def told_as_a2a() -> Iterator[None]:
    """Raise errors of A2A alone: the SDK tells a client what any other one says."""
    try:
        yield
    except A2AError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever it is, the client is told little)
        raise _a2a_error(error) from None


def _a2a_error(error: Exception) -> A2AError:
    if isinstance(error, NotFoundError):
        return TaskNotFoundError()
    problem = problem_of(error)
    is_callers = isinstance(error, InvalidInputError | InputRejectedError)
    return (InvalidParamsError if is_callers else InternalError)(
        problem.detail,
        data={"code": problem.code, "retryable": str(problem.retryable).lower()},
    )
