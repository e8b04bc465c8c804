"""The engines that are handed to libraries which take one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.driver import MOST_CONNECTIONS
from benchmarks.durability import PoolWitness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from benchmarks.driver import Place


@asynccontextmanager
async def engine_of(
    place: Place, *, postgres_driver: str = "asyncpg", connections: int = MOST_CONNECTIONS
) -> AsyncIterator[tuple[AsyncEngine, PoolWitness]]:
    """Yield an engine with at most *connections*, all kept open, and who asks them."""
    witness = PoolWitness(place.database)
    url = place.sqlalchemy_url.replace("+asyncpg", f"+{postgres_driver}")
    engine = create_async_engine(url, pool_size=connections, max_overflow=0)
    try:
        yield engine, witness
    finally:
        await engine.dispose()
