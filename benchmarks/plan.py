"""The workloads, in full and in small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.catalogue import ENTRIES, POSTGRES_GROUP, SQLITE_GROUP, Entry

if TYPE_CHECKING:
    from collections.abc import Callable

_JOBS: Final = "benchmarks.workloads."
# What takes a fast driver a fifth of a second says little: it is done again, with new users.
_AGAIN: Final = {"least_seconds": 2.0}


@dataclass(frozen=True, slots=True)
class Rows:
    """What a database holds before it is measured: *users* with *turns* turns each.

    Written by the driver where *by_sql* is false, and then only as long as *seconds*.
    """

    users: int
    turns: int
    by_sql: bool = False
    seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing that is measured. With *rows*, all repetitions share one database."""

    job: str
    options: dict[str, Any]
    name: str = ""
    processes: int = 1
    capacity: int | None = None
    rows: Rows | None = None
    most_seconds: float = 10.0
    repetitions: int | None = None

    @property
    def job_path(self) -> str:
        """Where the job is defined."""
        return _JOBS + self.job


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured side by side: *variants* of one kind of work, for *entries*."""

    key: str
    title: str
    unit: str
    variants: tuple[Variant, ...]
    entries: Callable[[Entry], bool]
    uses_chat: bool = False


def _is_ours(entry: Entry) -> bool:
    return entry.role == "ours"


def _is_no_peer(entry: Entry) -> bool:
    return entry.role != "peer"


def _has_chat(entry: Entry) -> bool:
    return entry.chat is not None


def _is_ours_or_group(entry: Entry) -> bool:
    return _is_ours(entry) or entry.key in {POSTGRES_GROUP, SQLITE_GROUP}


def _anyone(_: Entry) -> bool:
    return True


def workloads(*, quick: bool, sizes: tuple[str, ...]) -> tuple[Workload, ...]:
    """Return all workloads; *sizes* are those of the database that W4 grows to."""
    return (*_turns(quick=quick), _growth(sizes, quick=quick), *_rest(quick=quick))


def _turns(*, quick: bool) -> tuple[Workload, ...]:
    few, many = quick, 16 if quick else 64
    again = {} if few else _AGAIN
    rows = Rows(users=8, turns=60) if few else Rows(users=1000, turns=100)
    return (
        Workload(
            "W1",
            "one user, one turn after another",
            "turns",
            (Variant("turns:turns", {"users": 1, "turns": 15 if few else 500, **again}),),
            _is_ours_or_group if few else _anyone,
        ),
        Workload(
            "W2",
            "64 users at once",
            "turns",
            (Variant("turns:turns", {"users": many, "turns": 2 if few else 50, **again}),),
            _is_no_peer if few else _anyone,
        ),
        Workload(
            "W3",
            "the last 100 messages of a random user, 16 at once",
            "reads",
            (
                Variant(
                    "reads:reads",
                    {"reads": 30 if few else 6000, "at_once": 16, "turns": rows.turns},
                    rows=rows,
                ),
            ),
            _is_ours if few else _anyone,
        ),
    )


SIZES: Final = {
    "10 thousand": Rows(users=100, turns=50, by_sql=True),
    "1 million": Rows(users=5_000, turns=100, by_sql=True),
    "10 million": Rows(users=50_000, turns=100, by_sql=True),
}


def _growth(sizes: tuple[str, ...], *, quick: bool) -> Workload:
    return Workload(
        "W4",
        "64 users at once in a database that has grown",
        "turns",
        tuple(
            Variant(
                "growth:growth",
                {
                    "users": 16 if quick else 64,
                    "turns": 2 if quick else 50,
                    "rounds": 1 if quick else 5,
                    "rows_users": rows.users,
                    "rows_turns": rows.turns,
                },
                name=size,
                rows=rows,
                most_seconds=300.0,
            )
            for size, rows in SIZES.items()
            if size in sizes
        ),
        _is_ours_or_group,
    )


def _rest(*, quick: bool) -> tuple[Workload, ...]:
    few, many = quick, 16 if quick else 64
    again = {} if few else _AGAIN
    crowd = {"users": many, "turns": 2 if few else 200, "before": 55}
    return (
        Workload(
            "W5",
            "appends of 64 users at their capacity of 100, and without one",
            "appends",
            (
                Variant("appends:appends", {**crowd, "kept": 100}, name="prune", capacity=100),
                Variant("appends:appends", {**crowd, "kept": None}, name="keep all"),
            ),
            _is_ours if few else _is_no_peer,
        ),
        Workload(
            "W6",
            "whole runs of an agent whose model answers at once, 64 users at once",
            "runs",
            (Variant("runs:runs", {"users": many, "turns": 1 if few else 10}),),
            _is_ours if few else _has_chat,
            uses_chat=True,
        ),
        Workload(
            "W7",
            "several processes on one database, 64 users at once in each",
            "turns",
            tuple(
                Variant(
                    "turns:turns",
                    {"users": many, "turns": 2 if few else 50, **again},
                    name=f"{n} process{'es' if n > 1 else ''}",
                    processes=n,
                )
                for n in ((2,) if few else (1, 2, 4))
            ),
            _is_ours if few else _is_ours_or_group,
        ),
        Workload(
            "W8",
            "different users one after another in one process",
            "turns",
            (
                Variant(
                    "memory:many_users",
                    {"users": 50 if few else 100_000, "at_once": 16},
                    most_seconds=600.0,
                    repetitions=1,
                ),
            ),
            _is_ours,
        ),
        Workload(
            "W9",
            "one user at a capacity of 100, message after message",
            "appends",
            (
                Variant(
                    "appends:steady",
                    {"appends": 200 if few else 100_000, "at_once": 16, "kept": 100},
                    capacity=100,
                    most_seconds=900.0,
                ),
            ),
            _is_ours,
        ),
        Workload(
            "W10",
            "sixteen users while another one stores a message of 5 MB",
            "turns",
            (
                Variant(
                    "huge:huge",
                    {"users": 16, "megabytes": 5, "times": 1 if few else 5},
                    most_seconds=120.0,
                ),
            ),
            _is_ours,
        ),
    )


def entries_of(
    workload: Workload, databases: tuple[str, ...], keys: tuple[str, ...] | None
) -> list[Entry]:
    """Return whom the workload measures; *keys* are names of drivers or roles, None is everyone."""
    return [
        e
        for e in ENTRIES
        if workload.entries(e)
        and e.database in databases
        and (keys is None or e.key in keys or e.role in keys)
    ]
