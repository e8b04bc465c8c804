"""Settings from the environment, for the command line and servers; the library reads none."""

from __future__ import annotations

import os
from typing import Final

DEFAULT_DATABASE_URL: Final = "sqlite:///agno_sql.db"
DEFAULT_MODEL: Final = "gpt-5-mini"


def database_url() -> str:
    """Return AGNO_SQL_DATABASE_URL, else DATABASE_URL, else agno_sql.db in the current folder."""
    return (
        os.environ.get("AGNO_SQL_DATABASE_URL")
        or os.environ.get("DATABASE_URL")
        or DEFAULT_DATABASE_URL
    )


def model_name() -> str:
    """Return AGNO_SQL_MODEL, else the default model."""
    return os.environ.get("AGNO_SQL_MODEL") or DEFAULT_MODEL


def base_url() -> str | None:
    """Return OPENAI_BASE_URL, else ``None``, which is OpenAI."""
    return os.environ.get("OPENAI_BASE_URL") or None


def has_openai() -> bool:
    """Tell whether OPENAI_API_KEY, or OPENAI_BASE_URL for a server without keys, is set."""
    return bool(os.environ.get("OPENAI_API_KEY") or base_url())


def jwt_secret() -> str | None:
    """Return AGNO_SQL_JWT_SECRET, else ``None``: a command line is no place for a secret."""
    return os.environ.get("AGNO_SQL_JWT_SECRET") or None
