"""One run: every workload, repetition after repetition, each driver in turn."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.hands import WorkerFailedError, measure
from benchmarks.plan import Rows, Variant, Workload, entries_of
from benchmarks.populate import populate

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.catalogue import Entry
    from benchmarks.driver import Place
    from benchmarks.site import Site


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for."""

    workloads: tuple[Workload, ...]
    databases: tuple[str, ...]
    drivers: tuple[str, ...] | None
    repetitions: int

    def entries(self, workload: Workload) -> list[Entry]:
        """Return whom a workload measures."""
        return entries_of(workload, self.databases, self.drivers)


class Run:
    """Measures on one site."""

    def __init__(self, site: Site, options: Options, say: Callable[[str], None]) -> None:
        self._site = site
        self._options = options
        self._say = say

    def workload(self, workload: Workload) -> list[dict[str, Any]]:
        """Return a record for each variant, database and driver, with all its repetitions."""
        entries = self._options.entries(workload)
        records: dict[tuple[str, str, str], dict[str, Any]] = {}
        with ExitStack() as stack:
            bench = _Bench(self._site, workload, stack)
            self._interleaved(bench, entries, records)
        return [_with_median(record) for record in records.values()]

    def _interleaved(
        self,
        bench: _Bench,
        entries: list[Entry],
        records: dict[tuple[str, str, str], dict[str, Any]],
    ) -> None:
        for repetition in range(self._options.repetitions):
            for variant in bench.workload.variants:
                if repetition >= (variant.repetitions or self._options.repetitions):
                    continue
                for entry in entries:
                    record = records.setdefault(
                        (variant.name, entry.database, entry.key),
                        {**_names(bench.workload, variant, entry), "repetitions": []},
                    )
                    if "failed" not in record:
                        self._once(bench, variant, entry, record, repetition)

    def _once(
        self, bench: _Bench, variant: Variant, entry: Entry, record: dict[str, Any], repetition: int
    ) -> None:
        began = time.monotonic()
        words = [bench.workload.key, variant.name, entry.database, entry.key, f"#{repetition + 1}"]
        label = " ".join(filter(None, words))
        try:
            measured = bench.measure(variant, entry, repetition)
        except WorkerFailedError as error:
            record["failed"] = str(error)
            self._say(f"{label}: FAILED: {error}")
            return
        record["repetitions"].append(measured)
        failures = f", {measured['errors']} errors" if measured["errors"] else ""
        self._say(
            f"{label}: {measured['rate']:.0f} {bench.workload.unit}/s, p50 "
            f"{measured['p50_ms']:.1f} ms, p99 {measured['p99_ms']:.1f} ms{failures} "
            f"({time.monotonic() - began:.0f} s)"
        )


class _Bench:
    """The databases of one workload; those that repetitions share are kept until its end."""

    def __init__(self, site: Site, workload: Workload, stack: ExitStack) -> None:
        self.workload = workload
        self._site = site
        self._stack = stack
        self._shared: dict[tuple[str, str, str], tuple[Place, dict[str, Any]]] = {}

    def measure(self, variant: Variant, entry: Entry, repetition: int) -> dict[str, Any]:
        if variant.rows is not None:
            place, known = self._filled(variant, variant.rows, entry)
            return self._measure(place, variant, entry, repetition, known)
        with self._site.fresh(entry.database, variant.capacity) as place:
            return self._measure(place, variant, entry, repetition, {})

    def _measure(
        self,
        place: Place,
        variant: Variant,
        entry: Entry,
        repetition: int,
        known: dict[str, Any],
    ) -> dict[str, Any]:
        order: dict[str, Any] = {
            "driver": entry.chat if self.workload.uses_chat else entry.driver,
            "job": variant.job_path,
            "options": {**variant.options, **known},
            "most_seconds": variant.most_seconds,
            "repetition": repetition,
        }
        orders = [order] * variant.processes
        if variant.processes > 1:
            orders = [
                {**order, "options": {**order["options"], "name": f"process-{n}"}}
                for n in range(variant.processes)
            ]
        return measure(self._site, entry.environment, place, orders)

    def _filled(self, variant: Variant, rows: Rows, entry: Entry) -> tuple[Place, dict[str, Any]]:
        key = (variant.name, entry.database, entry.key)
        if key not in self._shared:
            place = self._stack.enter_context(self._site.fresh(entry.database, variant.capacity))
            if rows.by_sql:
                populate(place, rows, has_our_tables=entry.role == "ours")
                self._shared[key] = place, {}
            else:
                order = {
                    "driver": entry.driver,
                    "job": "benchmarks.workloads.reads:fill",
                    "options": {k: v for k, v in asdict(rows).items() if k != "by_sql"},
                    "most_seconds": rows.seconds,
                    "repetition": 0,
                }
                filled = measure(self._site, entry.environment, place, [order])
                self._shared[key] = place, {"names": filled["names"]}
        return self._shared[key]


def _names(workload: Workload, variant: Variant, entry: Entry) -> dict[str, Any]:
    return {
        "workload": workload.key,
        "variant": variant.name,
        "database": entry.database,
        "driver": entry.key,
        "title": entry.title,
        "role": entry.role,
    }


def _with_median(record: dict[str, Any]) -> dict[str, Any]:
    """Add the median of each figure; what is no figure is as it was in the last repetition."""
    repetitions = record["repetitions"]
    if not repetitions:
        return record
    last = repetitions[-1]
    record["median"] = {
        key: statistics.median(r[key] for r in repetitions)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else value
        for key, value in last.items()
    }
    record["median"]["errors"] = sum(r["errors"] for r in repetitions)
    return record
