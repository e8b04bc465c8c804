"""What every Memory promises, as a test class to inherit.

    class TestMyMemory(MemorySuite):
        @pytest.fixture
        def open_memory(self) -> OpenMemory:
            return lambda capacity=100: MyMemory.open(capacity=capacity)

Each test opens one memory, which has to be empty.
"""

from __future__ import annotations

from agno_sql.testing.promises.capacity import CapacityPromises, ClearingPromises
from agno_sql.testing.promises.concurrency import ConcurrencyPromises
from agno_sql.testing.promises.content import ContentPromises
from agno_sql.testing.promises.isolation import IsolationPromises
from agno_sql.testing.promises.opening import OpenMemory
from agno_sql.testing.promises.reading import ReadingPromises, WholenessPromises

__all__ = ["MemorySuite", "OpenMemory"]


class MemorySuite(
    ReadingPromises,
    WholenessPromises,
    ConcurrencyPromises,
    CapacityPromises,
    ClearingPromises,
    IsolationPromises,
    ContentPromises,
):
    """Inherit it, override the fixture ``open_memory``, and run pytest."""
