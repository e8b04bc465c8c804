"""Where it is measured: a PostgreSQL of our own with its defaults, and a folder for SQLite files."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import uuid4

import psycopg
from psycopg import sql

from benchmarks.driver import Place
from tests.support.postgres import PrivatePostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = 18
# The server's own default, which the tests' server lowers.
_SETTINGS: Final = {"shared_buffers": "128MB"}
_SHOWN: Final = ("server_version", "fsync", "synchronous_commit", "full_page_writes",
                 "shared_buffers", "max_wal_size", "wal_sync_method")  # fmt: skip
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Look:
    """What the server has done up to a moment: log written (bytes), processor time (seconds)."""

    log_bytes: int
    cpu_s: float


class Site:
    """The one server that all drivers of a run are measured on, and a folder beside it."""

    def __init__(self, folder: Path, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.folder = folder
        self._admin = admin
        (backend,) = self._ask("SELECT pg_backend_pid()")
        self._postmaster = _parent(backend)

    @classmethod
    @contextmanager
    def open(cls, beside: Path) -> Iterator[Self]:
        """Start the server in a new folder inside *beside*; stop it and clear up at the end."""
        with tempfile.TemporaryDirectory(prefix="agno-sql-bench-", dir=beside) as name:
            folder = Path(name)
            folder.chmod(0o755)  # the server may have to run as somebody else
            home = folder / "postgresql"
            home.mkdir()
            server = PrivatePostgres(VERSION, durable=True, settings=_SETTINGS, folder=home)
            try:
                server.start()
                with psycopg.connect(_plain(server.url), autocommit=True) as admin:
                    yield cls(folder, admin)
            finally:
                server.destroy()

    @contextmanager
    def fresh(self, database: str, capacity: int | None = None) -> Iterator[Place]:
        """Yield a new database, which is dropped afterwards."""
        name = f"bench_{uuid4().hex[:12]}"
        if database == "sqlite":
            path = self.folder / f"{name}.db"
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
            try:
                yield Place(database, str(path), capacity)
            finally:
                for left in self.folder.glob(f"{name}.db*"):
                    left.unlink()
            return
        self._admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            info = self._admin.info
            address = f"postgresql://{info.user}@{info.host}:{info.port}/{name}"
            yield Place(database, address, capacity)
        finally:
            self._admin.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def checkpoint(self) -> None:
        """Let what was written before be on disk, so that no driver pays for another."""
        self._admin.execute("CHECKPOINT")

    def look(self) -> Look:
        """Return what the server has done so far."""
        (written,) = self._ask("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return Look(int(written), _family_cpu(self._postmaster))

    def connections(self, place: Place) -> int:
        """Return how many connections the database has just now."""
        name = place.address.rpartition("/")[2]
        (count,) = self._ask("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", name)
        return int(count)

    def settings(self) -> dict[str, str]:
        """Return the server's settings that decide what a figure means."""
        return {name: str(self._ask(f"SHOW {name}")[0]) for name in _SHOWN}

    def _ask(self, question: str, *values: object) -> tuple[Any, ...]:
        row = self._admin.execute(question.encode(), values or None).fetchone()
        assert row is not None
        return row


def _plain(url: str) -> str:
    return url.replace("+asyncpg", "")


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _family_cpu(postmaster: int) -> float:
    """Return the processor time of the server: of each of its processes, and of those that ended."""
    own = _stat(postmaster)
    ticks = sum(int(field) for field in own[11:15])  # its own, and what its ended children took
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = _stat(int(entry.name))
            if int(fields[1]) == postmaster:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def _stat(pid: int) -> list[str]:
    # "pid (name) state parent …"; a name may hold anything but the last parenthesis.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
