"""What tools and hooks are told about the run they serve."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """Handed to a tool that has a parameter of this type; the model does not see it.

    ``idempotency_key`` is unique per user, session, run, round and position of the call in its
    round, and the same whenever that call is made again: hand it to services that take one.
    ``tool_call_id`` is the provider's, which may repeat.
    """

    user_id: str
    session_id: str
    run_id: str
    tool_call_id: str
    idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HookInput:
    """What a hook sees; ``output`` is ``None`` in a pre hook and the answer in a post hook."""

    user_id: str
    session_id: str
    run_id: str
    input: str
    output: str | None = None


def idempotency_key(
    user_id: str, session_id: str, run_id: str, *, round_number: int, position: int
) -> str:
    """Return 64 hexadecimal digits that only these five together give."""
    named = json.dumps([user_id, session_id, run_id, round_number, position])
    return sha256(named.encode()).hexdigest()
