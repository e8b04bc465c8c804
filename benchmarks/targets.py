"""What the figures must reach, as ratios within one workload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.catalogue import DATABASES, POSTGRES_GROUP, POSTGRES_STATEMENT, SQLITE_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.results import Results

_NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}


@dataclass(frozen=True, slots=True)
class Target:
    """One ratio: at least *must* and better *goal*, or at most those if ``at_most``."""

    workload: str
    what: str
    value: float
    must: float
    goal: float
    at_most: bool = False
    unit: str = "x"

    @property
    def verdict(self) -> str:
        """Which of the two was reached."""
        if self._reaches(self.goal):
            return "goal"
        return "must" if self._reaches(self.must) else "**missed**"

    @property
    def sign(self) -> str:
        """How the value has to compare."""
        return "≤" if self.at_most else "≥"

    def _reaches(self, limit: float) -> bool:
        return self.value <= limit if self.at_most else self.value >= limit


def targets(results: Results) -> list[Target]:
    """Return every ratio whose figures are there."""
    return [
        *_against_peers(results),
        *_against_floors(results),
        *_against_itself(results),
        *_growth(results),
        *_processes(results),
        *_single(results),
    ]


def _against_peers(results: Results) -> Iterator[Target]:
    for workload, database, must, goal in (
        ("W1", "postgresql", 3, 5),
        ("W1", "sqlite", 0.5, 1),
        ("W2", "postgresql", 8, 12),
        ("W2", "sqlite", 4, 6),
        ("W3", "postgresql", 5, 8),
        ("W3", "sqlite", 2.5, 4),
        ("W6", "postgresql", 5, 5),
        ("W6", "sqlite", 5, 5),
    ):
        ours, peer = results.find(workload, database, "ours"), results.best_peer(workload, database)
        if ours and peer:
            what = f"{_NAMES[database]}: the best library, {peer['title']}"
            yield Target(workload, what, ours["rate"] / peer["median"]["rate"], must, goal)


def _against_floors(results: Results) -> Iterator[Target]:
    for workload, database, floor, must, goal in (
        ("W1", "postgresql", POSTGRES_STATEMENT, 0.4, 0.6),
        ("W2", "postgresql", POSTGRES_GROUP, 0.5, 0.7),
        ("W2", "sqlite", SQLITE_GROUP, 0.6, 0.9),
    ):
        ours = results.find(workload, database, "ours")
        raw = results.find(workload, database, floor)
        if ours and raw:
            what = f"{_NAMES[database]}: without a library, {floor}"
            yield Target(workload, what, ours["rate"] / raw["rate"], must, goal)


def _against_itself(results: Results) -> Iterator[Target]:
    for database in DATABASES:
        name = _NAMES[database]
        if crowd := results.find("W2", database, "ours"):
            spread = crowd["p99_ms"] / crowd["p50_ms"]
            yield Target("W2", f"{name}: p99 to p50", spread, 5, 5, at_most=True)
        keep = results.find("W5", database, "ours", "keep all")
        prune = results.find("W5", database, "ours", "prune")
        if keep and prune:
            what = f"{name}: appends without a prune to appends with one"
            yield Target("W5", what, keep["rate"] / prune["rate"], 2, 1.3, at_most=True)


def _growth(results: Results) -> Iterator[Target]:
    for database in DATABASES:
        sizes = {
            r["variant"]: r["median"]
            for r in results.records("W4")
            if r["database"] == database and r["driver"] == "ours"
        }
        if not sizes:
            continue
        name = _NAMES[database]
        (small, first), *_, (large, last) = [*sizes.items(), *sizes.items()]
        if small != large:
            what = f"{name}: turns at {large} messages to those at {small}"
            yield Target("W4", what, last["rate"] / first["rate"], 0.85, 1)
        listing = max(m["list_ms"] / m["alone_ms"] for m in sizes.values())
        what = f"{name}: a page of inactive users to one turn, at the worst size"
        yield Target("W4", what, listing, 10, 10, at_most=True)
        for one, usual in (("a lone turn", "alone_ms"), ("a turn of 64 users", "p50_ms")):
            pause = max(m["pause_ms"] / m[usual] for m in sizes.values())
            what = f"{name}: a writer's longest turn beside a clean-up to {one}, at the worst size"
            yield Target("W4", what, pause, 10, 10, at_most=True)


def _processes(results: Results) -> Iterator[Target]:
    for database in DATABASES:
        one = results.find("W7", database, "ours", "1 process")
        four = results.find("W7", database, "ours", "4 processes")
        if one and four and database == "postgresql":
            what = "PostgreSQL: four processes to one"
            yield Target("W7", what, four["rate"] / one["rate"], 1, 1)
        if four:
            what = f"{_NAMES[database]}: errors that callers of four processes got"
            yield Target("W7", what, four["errors"], 0, 0, at_most=True, unit="")


def _single(results: Results) -> Iterator[Target]:
    for database in DATABASES:
        name = _NAMES[database]
        if memory := results.find("W8", database, "ours"):
            what = f"{name}: what a process grows by over {memory['users']:,.0f} users"
            yield Target("W8", what, memory["grown_mb"], 20, 20, at_most=True, unit=" MB")
        if steady := results.find("W9", database, "ours"):
            what = f"{name}: the pace of the second half to that of the first"
            yield Target("W9", what, steady["second_to_first"], 0.9, 1)
        if huge := results.find("W10", database, "ours"):
            what = f"{name}: what a huge message adds to others' turns, to its own commit"
            added = max(0.0, huge["beside_ms"] - huge["usual_ms"]) / huge["huge_ms"]
            yield Target("W10", what, added, 1, 1, at_most=True)
