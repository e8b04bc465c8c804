"""Many processes that want the one write lock of an SQLite file at once."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from agno_sql.memory.sql import SQLMemory
from tests.faults.checks import assert_answered, assert_numbered, runs_in
from tests.faults.storm import (
    ADDS,
    RUNS_ALONE,
    RUNS_TOGETHER,
    SHARED_RUNS,
    SHARED_TALKS,
    stormer,
)

PROCESSES = [f"p{n}" for n in range(8)]
STEPS_OF_A_RUN = 5  # the input, two calls in one message, their results, the answer


@pytest.mark.guarantee("G48")
async def test_no_error_of_a_locked_file_reaches_a_caller_and_all_is_stored_once(
    sqlite_url: str,
) -> None:
    async with SQLMemory.open(sqlite_url):
        pass
    with ExitStack() as stack:
        processes = [stack.enter_context(stormer(sqlite_url, name)) for name in PROCESSES]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate()[0].splitlines() for process in processes]
        assert [process.returncode for process in processes] == [0] * len(PROCESSES)

    per_process = len(SHARED_TALKS) * ADDS + RUNS_TOGETHER + RUNS_ALONE
    assert [len(lines) for lines in told] == [per_process] * len(PROCESSES)
    async with SQLMemory.open(sqlite_url, migrate=False) as memory:
        for user in SHARED_TALKS:
            stored = await memory.get_messages(user)
            assert_numbered(stored)
            assert len(stored) == len(PROCESSES) * ADDS
            for name in PROCESSES:
                own = [m.content for m in stored if m.content.startswith(f"{name}.")]
                assert own == [f"{name}.{n}" for n in range(ADDS)]
        for name in PROCESSES:
            await assert_run_in_order(memory, f"runs-of-{name}", {name: RUNS_ALONE})
        await assert_run_in_order(memory, SHARED_RUNS, dict.fromkeys(PROCESSES, RUNS_TOGETHER))


async def assert_run_in_order(memory: SQLMemory, user: str, times: dict[str, int]) -> None:
    """Require that *user* has the runs of each process whole, in its order, and nothing else."""
    stored = await memory.get_messages(user)
    assert_numbered(stored)
    runs = list(runs_in(stored).values())
    assert sum(map(len, runs)) == len(stored)
    for turn in runs:
        assert len(turn) == STEPS_OF_A_RUN
        assert_answered(turn)
        asked = turn[0].content
        assert [m.content for m in turn[2:]] == [asked, asked, f"answer to {asked}"]
    asked_by = [turn[0].content for turn in runs]
    assert len(asked_by) == sum(times.values())
    for name, count in times.items():
        own = [asked for asked in asked_by if asked.startswith(f"{name}.")]
        assert own == [f"{name}.{n}" for n in range(count)]
