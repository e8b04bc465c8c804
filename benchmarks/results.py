"""The figures of the last run of each workload, kept as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.environments import GROUPS, MissingEnvironmentError, versions
from benchmarks.machine import describe, packages

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.plan import Workload
    from benchmarks.site import Site


class Results:
    """What is in the file, workload by workload.

    A workload on a database was measured in one go, all its drivers interleaved; so ratios are
    taken within a workload and a database only. ``measured`` says when, on what machine, with
    which settings and versions.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.workloads: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.workloads = json.loads(path.read_text())

    def put(
        self, workload: Workload, records: list[dict[str, Any]], site: Site, repetitions: int
    ) -> None:
        """Replace what is known of a workload on the databases of *records*."""
        old = self.workloads.get(workload.key, {"measured": {}, "records": []})
        how = {
            "repetitions": repetitions,
            "machine": describe(site.folder),
            "server": site.settings(),
            "versions": {e: _versions(e) for e in ("project", *GROUPS)},
        }
        new = dict.fromkeys((r["database"] for r in records), how)
        kept = [r for r in old["records"] if r["database"] not in new]
        self.workloads[workload.key] = {
            "title": workload.title,
            "unit": workload.unit,
            "measured": old["measured"] | new,
            "records": [*records, *kept],
        }

    def save(self) -> None:
        """Write the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        ordered = dict(sorted(self.workloads.items(), key=lambda item: int(item[0][1:])))
        self._path.write_text(json.dumps(ordered, indent=1, sort_keys=False) + "\n")

    def records(self, key: str) -> list[dict[str, Any]]:
        """Return the records of a workload that were measured."""
        return [r for r in self.workloads.get(key, {}).get("records", []) if "median" in r]

    def find(
        self, key: str, database: str, driver: str, variant: str | None = None
    ) -> dict[str, Any] | None:
        """Return the medians of a driver; those of the first variant if none is named."""
        for record in self.records(key):
            if (record["database"], record["driver"]) == (database, driver) and (
                variant is None or record["variant"] == variant
            ):
                medians: dict[str, Any] = record["median"]
                return medians
        return None

    def best_peer(self, key: str, database: str) -> dict[str, Any] | None:
        """Return the record of the library that was fastest, without one error."""
        peers = [
            r
            for r in self.records(key)
            if r["role"] == "peer" and r["database"] == database and not r["median"]["errors"]
        ]
        return max(peers, key=lambda r: r["median"]["rate"], default=None)

    def failures(self, workloads: tuple[Workload, ...]) -> list[str]:
        """Return what could not be measured."""
        return [
            f"{w.key} {r['database']} {r['driver']}: {r['failed']}"
            for w in workloads
            for r in self.workloads[w.key]["records"]
            if "failed" in r
        ]


def _versions(environment: str) -> dict[str, str]:
    try:
        return versions(environment, packages())
    except MissingEnvironmentError:
        return {}
