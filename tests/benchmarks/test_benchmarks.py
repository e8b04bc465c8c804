"""The benchmark still measures, and notices what is wrong; how fast anything is, is not tested."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from benchmarks.catalogue import DATABASES, ENTRIES
from benchmarks.conversation import (
    Line,
    WrongMessagesError,
    answer,
    check,
    last_lines,
    question,
    reply_to,
)
from benchmarks.driver import load
from benchmarks.drivers.batches import Batches
from benchmarks.plan import SIZES, workloads
from benchmarks.report import BEGIN, END, figures
from benchmarks.results import Results
from benchmarks.stage import percentile
from benchmarks.targets import Target
from benchmarks.workloads.turns import one_turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

ALL = workloads(quick=True, sizes=tuple(SIZES)[:1])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", DATABASES)
def test_every_workload_measures_the_store_and_plain_code(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--quick", "--drivers", "ours,floor", "--databases", database]
    exit_code = main([*words, "--out", str(tmp_path)])

    told = capsys.readouterr().out
    assert exit_code == 0, told
    results = Results(tmp_path / "benchmarks" / "results.json")
    assert list(results.workloads) == [w.key for w in ALL]
    for workload in ALL:
        records = results.workloads[workload.key]["records"]
        assert any(r["role"] == "ours" for r in records), workload.key
        for record in records:
            label = f"{workload.key} {record['driver']}"
            assert record["median"]["rate"] > 0, label
            assert not record["median"]["errors"], f"{label}: {record['median']['first_error']}"
            assert record["median"]["durability"] in (
                {"fsync": "on", "synchronous_commit": "on"},
                {"journal_mode": "wal", "synchronous": "FULL"},
            ), label
        assert (tmp_path / "benchmarks" / f"{workload.key.lower()}.svg").exists()


def test_a_report_can_be_made_again_and_keeps_what_people_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"W1": measured()}))
    (tmp_path / "benchmarks.md").write_text(
        f"# Speed\n\nBefore.\n\n{BEGIN}\nout of date\n{END}\n\nAfter.\n"
    )

    assert main(["report", "--out", str(tmp_path)]) == 0

    text = (tmp_path / "benchmarks.md").read_text()
    assert text.startswith("# Speed\n\nBefore.\n")
    assert text.endswith("\nAfter.\n")
    assert "out of date" not in text
    assert "| W1 | PostgreSQL: the best library, quick | 0.50x | ≥ 3 | ≥ 5 | **missed** |" in text


def measured() -> dict[str, object]:
    def record(driver: str, role: str, rate: float, errors: int = 0) -> dict[str, object]:
        median = {
            "rate": rate,
            "errors": errors,
            "durability": {"fsync": "on"},
            **dict.fromkeys(
                ("p50_ms", "p99_ms", "longest_ms", "client_cpu_ms", "written_bytes", "peak_mb"), 1.0
            ),
        }
        names = {"driver": driver, "title": driver, "role": role}
        return {**names, "database": "postgresql", "variant": "", "median": median}

    machine = dict.fromkeys(
        ("cores", "processor", "memory_gb", "system", "filesystem", "python", "sqlite", "commit"),
        "",
    )
    return {
        "title": "one",
        "unit": "turns",
        "measured": {
            "postgresql": {
                "repetitions": 3,
                "machine": {**machine, "measured_at": "", "fdatasync_ms": 0.1},
                "server": {},
                "versions": {},
            }
        },
        "records": [
            record("ours", "ours", 100),
            record("quick", "peer", 200),
            record("slow", "peer", 50),
            # Quicker, but callers got errors: nobody can be compared with that.
            record("wrong", "peer", 900, errors=1),
        ],
    }


def test_figures_are_the_same_whatever_is_measured(tmp_path: Path) -> None:
    results = Results(tmp_path / "none.json")
    assert "## Ratios" in figures(results)


class Forgetful:
    """Loses the newest message."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, _: object) -> AsyncIterator[Forgetful]:
        yield cls()

    async def append(self, _: str, lines: Sequence[Line]) -> None:
        self._lines += lines

    async def read(self, _: str, limit: int) -> list[Line]:
        return self._lines[-limit:-1]

    async def durability(self) -> dict[str, str]:
        return {}


async def test_a_driver_that_returns_wrong_messages_is_found_out() -> None:
    with pytest.raises(WrongMessagesError, match=r"alice: read 1 messages, expected 2"):
        await one_turn(Forgetful(), "alice", 0)


@pytest.mark.parametrize(
    "found",
    [
        [],
        [answer("alice", 0), question("alice", 0)],
        [question("bob", 0), answer("alice", 0)],
        [question("alice", 0), answer("alice", 0), answer("alice", 0)],
    ],
    ids=["lost", "order", "another user's", "twice"],
)
def test_messages_are_compared_in_order_and_to_the_letter(found: list[Line]) -> None:
    expected = last_lines("alice", 1, 20)
    check(list(expected), expected, "alice")
    with pytest.raises(WrongMessagesError):
        check(found, expected, "alice")


def test_texts_have_their_size_and_say_whose_they_are() -> None:
    assert len(question("alice", 7).text.encode()) == 200
    assert len(answer("alice", 7).text.encode()) == 800
    assert reply_to(question("alice", 7).text) == answer("alice", 7).text
    assert [line.role for line in last_lines("alice", 9, 5)] == [
        "assistant",
        *["user", "assistant"] * 2,
    ]


def test_every_entry_of_the_project_can_be_loaded_and_none_is_listed_twice() -> None:
    assert len({(e.database, e.key) for e in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        if entry.environment == "project":
            assert load(entry.driver)


async def test_a_failed_batch_fails_for_everyone_in_it_and_the_next_one_works() -> None:
    is_broken = True

    async def double(batch: Sequence[int]) -> list[int]:
        if is_broken:
            raise ValueError("broken")
        return [2 * n for n in batch]

    batches = Batches(double)
    async with batches.running():
        failed = await asyncio.gather(*(batches.submit(n) for n in (1, 2)), return_exceptions=True)
        is_broken = False
        assert [type(error) for error in failed] == [ValueError, ValueError]
        assert await asyncio.gather(*(batches.submit(n) for n in (3, 4))) == [6, 8]


@pytest.mark.parametrize(
    "value, at_most, verdict",
    [(13, False, "goal"), (9, False, "must"), (7, False, "**missed**"), (7, True, "goal")],
)
def test_a_target_tells_what_was_reached(value: float, at_most: bool, verdict: str) -> None:
    assert Target("W2", "", value, must=8, goal=12, at_most=at_most).verdict == verdict


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([], 99) == 0
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 3.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 99) == 4.0
