"""The records of what an operator is told: how much is kept, and what happened on each day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime, timedelta

    from agno_sql.runs import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How much is kept: of a session, of a user, of some users, of all."""

    users: int
    sessions: int
    messages: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRun:
    """A run, and the seq of its first and last message; ``last_seq`` is known when it has ended."""

    record: RunRecord
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What is kept of one day, in UTC. A run belongs to the day it started on."""

    day: date
    users: int = 0
    """Who have a message of that day."""
    messages: int = 0
    runs: int = 0
    failed_runs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What is kept in all, by day, and how many bytes it takes; as of ``at``.

    ``days`` are all days of the time asked for, the oldest first. ``sizes`` are of the tables with
    their indexes on PostgreSQL, and of what is used and free in the file on SQLite. ``failures``
    are the newest runs that failed, the newest first.
    """

    at: datetime
    took: timedelta
    kept: Kept
    days: Sequence[Day]
    failures: Sequence[RunRecord]
    sizes: Mapping[str, int]
