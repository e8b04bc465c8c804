"""No model of a test is told by the machine where to ask, or with which key."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
