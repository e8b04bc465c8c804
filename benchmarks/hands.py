"""Starting workers, beginning their work together, and taking what they measured."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, Final

from benchmarks.environments import CHECKOUT, python_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.driver import Place
    from benchmarks.site import Site

_GRACE_S: Final = 420.0


class WorkerFailedError(Exception):
    """A worker ended without a result; says why."""


class Worker:
    """One process at work."""

    def __init__(self, process: subprocess.Popen[str], complaints: IO[str]) -> None:
        self._process = process
        self._complaints = complaints

    def await_record(self, kind: str) -> Any:
        """Return the worker's next record of that kind."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a library has printed something
            if not isinstance(record, dict):
                continue
            if "failed" in record:
                raise WorkerFailedError(record["failed"])
            if kind in record:
                return record[kind]
        self._complaints.seek(0)
        raise WorkerFailedError(f"it ended early: {self._complaints.read()[-1500:]}")

    def go_on(self) -> None:
        """Let the worker go on from where it waits."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()


@contextmanager
def worker(environment: str, order: dict[str, Any]) -> Iterator[Worker]:
    """Start a worker; it is gone when the block ends, and killed if it takes far too long."""
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [python_of(environment), "-m", "benchmarks.worker", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=CHECKOUT,
        ) as process,
    ):
        watch = threading.Timer(order["most_seconds"] + _GRACE_S, process.kill)
        watch.start()
        try:
            yield Worker(process, complaints)
        finally:
            watch.cancel()
            process.kill()


def measure(
    site: Site, environment: str, place: Place, orders: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Let one worker for each order work on *place*, all at once; return what they measured."""
    with ExitStack() as stack:
        crew = [
            stack.enter_context(worker(environment, {**order, "place": asdict(place)}))
            for order in orders
        ]
        for member in crew:
            member.await_record("ready")
        site.checkpoint()
        before = site.look()
        for member in crew:
            member.go_on()
        for member in crew:
            member.await_record("finished")
        after = site.look()
        connections = site.connections(place) if place.database == "postgresql" else None
        for member in crew:
            member.go_on()
        measured = together([member.await_record("result") for member in crew])
    if connections is not None:
        count = max(1, measured["count"])
        measured["connections"] = connections
        measured["server_cpu_ms"] = 1000 * (after.cpu_s - before.cpu_s) / count
        measured["log_bytes"] = (after.log_bytes - before.log_bytes) / count
    return measured


def together(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one result for processes that worked at once.

    Counts and memory are added; the time is that of the slowest, and so are the latencies.
    """
    if len(results) == 1:
        return results[0]
    count = sum(r["count"] for r in results)
    seconds = max(r["seconds"] for r in results)
    total = {
        **results[0],
        "count": count,
        "seconds": seconds,
        "rate": count / seconds,
        "peak_mb": sum(r["peak_mb"] for r in results),
        "errors": sum(r["errors"] for r in results),
        "first_error": next((r["first_error"] for r in results if r["first_error"]), None),
    }
    for key in ("p50_ms", "p99_ms", "longest_ms"):
        total[key] = max(r[key] for r in results)
    for key in ("client_cpu_ms", "written_bytes"):
        total[key] = sum(r[key] * r["count"] for r in results) / max(1, count)
    return total
