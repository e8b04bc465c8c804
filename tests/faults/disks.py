"""Disks that tests fill and free again."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import event, make_url, text

from tests.faults.checks import sync_url
from tests.support.postgres import upgrade_to_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine

SPARE: Final = 512 * 1024
"""Bytes that a full disk still has: small things fit."""

_PAGE: Final = 4096
_NO_LIMIT: Final = 2**32 - 2
_BLOCK: Final = 256 * 1024


class Disk(Protocol):
    """Where a database is."""

    async def fill(self) -> None:
        """Leave no room but SPARE."""
        ...

    async def free(self) -> None:
        """Make room again."""
        ...


class SmallFile:
    """An SQLite file that may not grow beyond what it is told, on the connections of *engine*."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._most_pages = _NO_LIMIT
        event.listen(engine.sync_engine, "checkout", self._limit)

    async def fill(self) -> None:
        async with self._engine.connect() as conn:
            pages = await conn.scalar(text("PRAGMA page_count"))
        assert isinstance(pages, int)
        self._most_pages = pages + SPARE // _PAGE

    async def free(self) -> None:
        self._most_pages = _NO_LIMIT

    def _limit(self, connection: DBAPIConnection, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count = {self._most_pages}")
        cursor.close()


class SmallFolder:
    """A file system of its own, which a file fills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    async def fill(self, *, spare: int = SPARE) -> None:
        disk = os.statvfs(self.folder)
        with self._ballast.open("wb") as ballast:
            for _ in range(max(0, disk.f_bavail * disk.f_frsize - spare) // _BLOCK):
                ballast.write(bytes(_BLOCK))

    async def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def mounted(size: str) -> Iterator[SmallFolder]:
    """Yield a tmpfs of *size*; skip the test, loudly, where none may be mounted."""
    if os.geteuid() != 0:
        pytest.skip("A FULL DISK UNDER POSTGRESQL IS NOT TESTED: only root may mount a tmpfs")
    with ExitStack() as stack:
        # Not below pytest's own folders: the server's user could not reach it there.
        folder = Path(tempfile.mkdtemp(prefix="agno-sql-disk-"))
        stack.callback(folder.rmdir)
        mount = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(folder)],  # noqa: S607
            check=False,
            capture_output=True,
            text=True,
        )
        if mount.returncode != 0:
            pytest.skip(f"A FULL DISK UNDER POSTGRESQL IS NOT TESTED: {mount.stderr.strip()}")
        stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        yield SmallFolder(folder)


@contextmanager
def database_on(disk: SmallFolder, server_url: str) -> Iterator[str]:
    """Yield the URL of a migrated database whose tables, but not its log, are on *disk*."""
    with ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(sync_url(server_url), autocommit=True))
        (data,) = admin.execute("SHOW data_directory").fetchone() or ("",)
        owner = Path(str(data)).stat()
        place = disk.folder / "tables"
        place.mkdir(mode=0o700)
        os.chown(place, owner.st_uid, owner.st_gid)
        admin.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(str(place)))
        stack.callback(admin.execute, "DROP TABLESPACE small")
        admin.execute("CREATE DATABASE small TABLESPACE small")
        stack.callback(admin.execute, "DROP DATABASE small WITH (FORCE)")
        url = make_url(server_url).set(database="small").render_as_string(hide_password=False)
        upgrade_to_head(url)
        yield url
