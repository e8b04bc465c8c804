"""The measured part of a worker: what begins and ends it, and what is counted meanwhile."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from array import array
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def tell(**record: Any) -> None:
    """Write one record for the process that started this one."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


class Stage:
    """One worker's measurement.

    The worker says that it is ready and waits for a word; it says that it has finished and waits
    again, so that the server can be looked at in between by whoever started the worker, and so
    that several workers begin together.

    Args:
        most_seconds: When to begin nothing new; what was done until then counts.
        repetition: How often the job was done before.
    """

    def __init__(self, most_seconds: float, repetition: int = 0) -> None:
        self.repetition = repetition
        self.latencies = array("d")  # small, for a job that counts memory
        self.errors: list[str] = []
        self.seconds = 0.0
        self._most_seconds = most_seconds
        self._cpu = 0.0
        self._written = 0
        self._began = 0.0

    @asynccontextmanager
    async def measuring(self) -> AsyncIterator[None]:
        """Measure the block."""
        # As servers do after their start: else a library pays for what it has imported each time
        # the collector looks through everything.
        gc.collect()
        gc.freeze()
        tell(ready=True)
        await _word()
        written, cpu, began = _written_bytes(), time.process_time(), time.perf_counter()
        self._began = began
        yield
        self.seconds = time.perf_counter() - began
        self._cpu = time.process_time() - cpu
        self._written = _written_bytes() - written
        tell(finished=True)
        await _word()

    @property
    def has_time(self) -> bool:
        """Whether something new may be begun."""
        return self.elapsed < self._most_seconds

    @property
    def elapsed(self) -> float:
        """The seconds since it began."""
        return time.perf_counter() - self._began

    @asynccontextmanager
    async def timing(self) -> AsyncIterator[None]:
        """Count the block as one thing done; its time counts unless it fails."""
        began = time.perf_counter()
        yield
        self.latencies.append(time.perf_counter() - began)

    def result(self) -> dict[str, Any]:
        """Return what was measured, per thing done where that is meant."""
        count = len(self.latencies)
        latencies = sorted(self.latencies)
        return {
            "count": count,
            "seconds": self.seconds,
            "rate": count / self.seconds if self.seconds else 0.0,
            "p50_ms": percentile(latencies, 50) * 1000,
            "p99_ms": percentile(latencies, 99) * 1000,
            "longest_ms": (latencies[-1] if latencies else 0.0) * 1000,
            "client_cpu_ms": 1000 * self._cpu / max(1, count),
            "written_bytes": self._written / max(1, count),
            "peak_mb": _peak_mb(),
            "errors": len(self.errors),
            "first_error": self.errors[0] if self.errors else None,
        }


def percentile(ordered: list[float], percent: float) -> float:
    """Return the value that *percent* of *ordered* do not exceed; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def resident_mb() -> float:
    """Return the memory this process holds just now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _peak_mb() -> float:
    # Not getrusage's, which begins with what the process had that started this one.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


async def _word() -> None:
    if not await asyncio.to_thread(sys.stdin.readline):
        raise RuntimeError("whoever started this worker is gone")


def _written_bytes() -> int:
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))
