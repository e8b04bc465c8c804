"""What a client says, as text; whatever can't be read is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2a.types import Role
from a2a.utils.errors import (
    ContentTypeNotSupportedError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
)

from agno_sql.server.a2a.tasks import TEXT

if TYPE_CHECKING:
    from a2a.types import Message, Part, SendMessageConfiguration


def text_of(message: Message) -> str:
    """Return what a user's message says, its parts line by line.

    Raises:
        ContentTypeNotSupportedError: A part is no plain text.
        InvalidParamsError: It is none of a user, or empty.
    """
    if message.role != Role.ROLE_USER:
        raise InvalidParamsError("the role of a message must be that of the user")
    text = "\n".join(map(_text, message.parts))
    if not text:
        raise InvalidParamsError("a message must say something")
    return text


def _text(part: Part) -> str:
    media_type = part.media_type.partition(";")[0].strip().lower()
    if part.WhichOneof("content") != "text" or media_type not in ("", TEXT):
        raise ContentTypeNotSupportedError(
            f"parts must be text, of {TEXT}: files and data are not read"
        )
    return part.text


def check(configuration: SendMessageConfiguration) -> None:
    """Return if an answer can be as the client wants it.

    Raises:
        PushNotificationNotSupportedError: It wants to be notified.
        ContentTypeNotSupportedError: It reads no text.
    """
    if configuration.HasField("task_push_notification_config"):
        raise PushNotificationNotSupportedError
    accepted = configuration.accepted_output_modes
    if accepted and not any(mode.startswith(("text", "*")) for mode in accepted):
        raise ContentTypeNotSupportedError(f"answers are {TEXT}")
