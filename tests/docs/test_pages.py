"""What the documents say is true: their code runs, their links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from agno_sql.testing import Reply, ScriptedOpenAI
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

PAGES: Final = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
LINK: Final = re.compile(r"\]\((?!https?:)([^)#]+)")


def test_the_readme_example_remembers_over_a_restart(tmp_path: Path) -> None:
    page = (CHECKOUT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    def answer(request: dict[str, Any]) -> Reply:
        heard = [m["content"] for m in request["messages"] if m["role"] == "user"]
        knows = "My name is Alice" in heard[:-1]
        return Reply(text="You are Alice." if knows else "Hello!")

    with ScriptedOpenAI(answer) as server:
        done = subprocess.run(
            [sys.executable, "-c", example],
            cwd=tmp_path,
            env=os.environ | {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "test"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Hello!", "You are Alice."]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    broken = [to for to in LINK.findall(page.read_text()) if not (page.parent / to).exists()]
    assert not broken


def test_the_readme_stays_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) < 150
