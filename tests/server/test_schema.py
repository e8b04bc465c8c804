"""The OpenAPI document against what a server does: schemathesis tries every operation."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from agno_sql.memory.sql import SQLMemory
from tests.support.http import server_process

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES: Final = 200
OPERATIONS: Final = 10
# What is valid by the form of each field may still be refused: a user_id that nobody names, a
# cursor of no page, an Idempotency-Key that differs from the run_id.
LEFT_OUT: Final = "positive_data_acceptance"


@pytest.mark.guarantee("G73")
@pytest.mark.timeout(280)
async def test_every_operation_does_what_the_document_says_whatever_it_is_sent(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with SQLMemory.open(sqlite_url) as memory:
        _, key = await memory.api_keys.create("schemathesis", is_admin=True)
    with server_process("--demo", "--database", sqlite_url, "--auth", "api-keys") as server:
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *(sys.executable, "-m", "schemathesis.cli", "run"),
                f"{server.url}/openapi.json",
                *("--max-examples", str(EXAMPLES), "--phases", "coverage,fuzzing", "--no-color"),
                *("--header", f"Authorization: Bearer {key}"),
                *("--exclude-checks", LEFT_OUT),
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    (tested,) = re.findall(r"Tested: (\d+)", done.stdout)
    assert int(tested) == OPERATIONS
    assert "Traceback" not in server.log
