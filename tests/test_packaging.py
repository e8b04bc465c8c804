"""What is built and installed works without the checkout beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

FAST_IMPORT = """
import sys, time
begin = time.perf_counter()
import agno_sql
print(time.perf_counter() - begin)
heavy = {"sqlalchemy", "alembic", "openai", "pydantic", "typer", "rich", "asyncpg", "fastapi", "uvicorn"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), str(CHECKOUT)],
        check=True,
        capture_output=True,
        text=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_migrations_the_pages_and_the_type_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "agno_sql/py.typed" in names
    assert "agno_sql/_migrations/env.py" in names
    for migration in (CHECKOUT / "migrations" / "versions").glob("*.py"):
        assert f"agno_sql/_migrations/versions/{migration.name}" in names
    server = CHECKOUT / "agno_sql" / "server"
    pages, admin = server / "pages", server / "admin"
    for file in (
        *pages.glob("*.html"),
        *pages.glob("static/**/*.*"),
        *admin.glob("templates/*"),
        *admin.glob("static/*"),
    ):
        assert file.relative_to(CHECKOUT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


@pytest.mark.timeout(600)
def test_the_installed_command_manages_a_database(
    wheel: Path, tmp_path: Path, empty_postgres_url: str
) -> None:
    home = tmp_path / "clean"
    venv.create(home, with_pip=True)
    subprocess.run(
        [str(home / "bin" / "pip"), "install", "-q", str(wheel)], check=True, capture_output=True
    )
    command = str(home / "bin" / "agno-sql")
    environment = {k: v for k, v in os.environ.items() if not k.endswith("DATABASE_URL")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    for url in (f"sqlite:///{tmp_path / 'chat.db'}", empty_postgres_url):
        assert run("db", "check", "--database", url).returncode == 1
        for arguments in (["upgrade"], ["check"], ["current"], ["downgrade", "base", "--yes"]):
            done = run("db", *arguments, "--database", url)
            assert done.returncode == 0, done.stderr
        assert run("db", "upgrade", "--database", url).returncode == 0
    demo = run("demo")
    assert demo.returncode == 0, demo.stdout + demo.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAST_IMPORT], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
