"""An API key, as it is known after its making: without its secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What lets a back end act for users; ``id`` stands in the key's text, in front of its secret.

    One that was revoked stays known, so that a log's id can be told whose it was.
    """

    id: str
    name: str
    is_admin: bool
    created_at: datetime
    revoked_at: datetime | None = None
