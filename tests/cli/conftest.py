"""The installed console script, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

BIN = Path(sys.executable).parent
PROMPT = r"you(?:\x1b\[0m)? > "


@dataclass
class CommandLine:
    """Runs ``agno-sql`` in *folder*, without the developer's keys and databases."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "agno-sql"), *arguments],
            cwd=self.folder,
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    def shell(self, line: str, *, stdin: str = "", path: str) -> subprocess.CompletedProcess[str]:
        """Run a pasted *line*."""
        return subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.folder,
            env={**self.env, "PATH": path},
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    def terminal(self, *arguments: str, env: Mapping[str, str] | None = None) -> pexpect.spawn[str]:
        """Start the program at a pseudo-terminal of 80 columns."""
        return pexpect.spawn(
            str(BIN / "agno-sql"),
            list(arguments),
            cwd=str(self.folder),
            env={**self.env, "TERM": "xterm-256color", **(env or {})},
            encoding="utf-8",
            dimensions=(40, 80),
            timeout=30,
        )


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    folder = tmp_path / "work"
    folder.mkdir()
    env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8", **coverage}
    return CommandLine(folder, env)


@pytest.fixture
def database(cli: CommandLine) -> str:
    return f"sqlite:///{cli.folder / 'chat.db'}"
