"""A fault: one thing that must not happen, with where it did."""

from __future__ import annotations

from typing import Final, NamedTuple

LOST: Final = "lost"
DUPLICATED: Final = "duplicated"
REORDERED: Final = "reordered"
CROSS_TENANT: Final = "cross-tenant"
TWICE: Final = "answered twice"
TOOL_TWICE: Final = "tool run twice"
INVALID: Final = "invalid for a provider"
COUNTERS: Final = "broken counters"
TORN: Final = "torn"
REFUSED: Final = "stored though refused"
CONTRADICTED: Final = "ended otherwise than told"
RUNNING: Final = "still running"
STUCK: Final = "stuck"
EXIT: Final = "unexpected exit"
ERROR: Final = "unexpected error"

KINDS: Final = (
    LOST,
    DUPLICATED,
    REORDERED,
    CROSS_TENANT,
    TWICE,
    TOOL_TWICE,
    INVALID,
    COUNTERS,
    TORN,
    REFUSED,
    CONTRADICTED,
    RUNNING,
    STUCK,
    EXIT,
    ERROR,
)


class Fault(NamedTuple):
    """*run_id* is the run whose timeline is the evidence, where there is one."""

    kind: str
    what: str
    run_id: str = ""
