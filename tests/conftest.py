"""Databases for the tests, and a guard that watches what reaches them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from agno_sql.memory.sql import SQLMemory
from agno_sql.store import batches
from tests.support.clock import FakeClock
from tests.support.postgres import Databases, databases
from tests.support.tenant_guard import TenantGuard, guarded_engines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytest.register_assert_rewrite("agno_sql.testing.promises")

# How long an example takes says more about the machine than about the code.
settings.register_profile("agno_sql", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("agno_sql")


@pytest.fixture(scope="session")
def tenant_guard() -> Iterator[TenantGuard]:
    with guarded_engines() as guard:
        yield guard


@pytest.fixture(autouse=True)
def every_statement_pins_its_users(tenant_guard: TenantGuard) -> Iterator[None]:
    yield
    violations = tenant_guard.take()
    assert not violations, "\n\n".join(violations)


@pytest.fixture
def one_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let conversations share their batches whatever their names are."""
    for driver, way in batches.WAYS.items():
        monkeypatch.setitem(batches.WAYS, driver, way._replace(writers=1, readers=1))


@pytest.fixture(scope="session")
def postgres_18() -> Iterator[Databases]:
    with databases(18) as maker:
        yield maker


@pytest.fixture(scope="session")
def postgres_16() -> Iterator[Databases]:
    with databases(16) as maker:
        yield maker


@pytest.fixture
def postgres_url(postgres_18: Databases) -> Iterator[str]:
    with postgres_18.fresh() as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_18: Databases) -> Iterator[str]:
    with postgres_18.fresh(migrated=False) as url:
        yield url


@pytest.fixture
def postgres_16_url(postgres_16: Databases) -> Iterator[str]:
    with postgres_16.fresh() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'agno_sql.db'}"


@pytest.fixture(
    params=[pytest.param("sqlite_url", id="sqlite"), pytest.param("postgres_url", id="postgres18")]
)
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def memory(database_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url) as opened:
        yield opened


@pytest.fixture
async def sqlite_memory(sqlite_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(sqlite_url) as opened:
        yield opened


@pytest.fixture
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything go the portable way, as on a database that has no other."""
    monkeypatch.setattr("agno_sql.store.batches.WAYS", {})


@pytest.fixture(params=["together", "portable"])
def way(request: pytest.FixtureRequest) -> str:
    """Both ways of writing and reading, one after the other."""
    if request.param == "portable":
        request.getfixturevalue("portable")
    return str(request.param)
