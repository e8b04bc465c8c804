"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.environments import CHECKOUT

_SYNCS: Final = 200
_PACKAGES: Final = (
    "agno-sql",
    "sqlalchemy",
    "asyncpg",
    "aiosqlite",
    "psycopg",
    "openai-agents",
    "langchain-postgres",
    "langchain-community",
    "google-adk",
    "agno",
    "llama-index-core",
    "llama-index-storage-chat-store-postgres",
    "llama-index-storage-chat-store-sqlite",
)


def packages() -> tuple[str, ...]:
    """Return the packages whose versions decide what a figure means."""
    return _PACKAGES


def describe(folder: Path) -> dict[str, Any]:
    """Return the machine, and how fast *folder*'s disk makes a small write durable."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cores": os.cpu_count(),
        "processor": _field("/proc/cpuinfo", "model name"),
        "memory_gb": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20),
        "system": f"{platform.system()} {platform.release()}",
        "filesystem": _filesystem(folder),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "fdatasync_ms": fdatasync_ms(folder),
        "load_before": os.getloadavg()[0],
    }


def fdatasync_ms(folder: Path) -> float:
    """Return how long 8 KB take to be on disk, the median of many."""
    path, block, taken = folder / "fdatasync", b"x" * 8192, []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(block)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(taken) * 1000


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _filesystem(folder: Path) -> str:
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        if str(folder.resolve()).startswith(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607  (whichever git there is)
        check=False,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    return done.stdout.strip() or "unknown"
