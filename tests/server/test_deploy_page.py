"""The code of docs/deploy.md runs as it stands there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from agno_sql.testing import Reply, ScriptedOpenAI
from tests.support.http import served_app
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    import pytest


async def test_the_agent_of_the_page_is_served_by_the_host_of_the_page(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    page = (CHECKOUT / "docs" / "deploy.md").read_text()
    said: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, said)  # noqa: S102  (our own page)
    with ScriptedOpenAI([Reply(text="Ahoy")]) as model:
        monkeypatch.setenv("AGNO_SQL_DATABASE_URL", sqlite_url)
        monkeypatch.setenv("OPENAI_BASE_URL", model.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        async with said["agent"]() as agent, served_app(said["host_of"](agent)) as client:
            told = await client.post("/assistant/chat", json={"user_id": "a", "message": "x"})
    assert told.json()["reply"] == "Ahoy"
