"""A job: what the driver hands to one worker, once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

Kind = Literal["run", "add", "clear", "cancel", "recover"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of the library. A run that is handed out again is another job of the same run_id.

    *contents* are the input of a run, or the messages to add, all at once. A run may be *streamed*,
    may have a time limit, and its client may go away before it is done.
    """

    number: int
    kind: Kind
    user: str = ""
    session: str = ""
    run_id: str = ""
    contents: tuple[str, ...] = ()
    is_streamed: bool = False
    timeout_s: float | None = None
    leaves_after_s: float | None = None

    @property
    def run_key(self) -> tuple[str, str, str]:
        return self.user, self.session, self.run_id

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Self:
        fields = json.loads(line)
        return cls(**{**fields, "contents": tuple(fields["contents"])})
