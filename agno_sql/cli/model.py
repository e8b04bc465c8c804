"""Which model answers: a real one where the environment names one, else the offline one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agno_sql import settings
from agno_sql.models.demo import DemoModel

if TYPE_CHECKING:
    from agno_sql.models.chat_model import ChatModel


def chosen_model() -> ChatModel:
    """Return the model of the settings: OpenAI's or a compatible server's, else the demo model."""
    if not settings.has_openai():
        return DemoModel()
    from agno_sql.models.openai_chat import OpenAIChat  # noqa: PLC0415  (not needed offline)

    return OpenAIChat(settings.model_name(), base_url=settings.base_url())


def described(model: ChatModel) -> str:
    """Return what to tell a person about *model*."""
    if isinstance(model, DemoModel):
        return f"{model.name} (offline demo model: no AI; set OPENAI_API_KEY for a real one)"
    return model.name
