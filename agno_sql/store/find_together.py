"""Which runs are stored, for several tasks with one statement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from agno_sql.store.database import ANSWER_WITHIN_S
from agno_sql.store.writes import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import aiosqlite
    import asyncpg

    from agno_sql.runs import RunKey

# Arrays hide behind a SELECT: the planner would count a constant one, and plan anew each time.
_POSTGRESQL: Final = """
SELECT wanted.place
FROM unnest(
    (SELECT $1::int[]), (SELECT $2::text[]), (SELECT $3::text[]), (SELECT $4::text[])
) AS wanted (place, user_id, session_id, run_id)
CROSS JOIN LATERAL (
    SELECT FROM runs r
    WHERE r.user_id = wanted.user_id AND r.session_id = wanted.session_id
        AND r.run_id = wanted.run_id
    LIMIT 1
) r
"""
_SQLITE: Final = """
SELECT wanted.key FROM json_each(?) wanted CROSS JOIN runs r
    ON r.user_id = json_extract(wanted.value, '$[0]')
    AND r.session_id = json_extract(wanted.value, '$[1]')
    AND r.run_id = json_extract(wanted.value, '$[2]')
"""


async def find_postgresql(driver: asyncpg.Connection[Any], keys: Sequence[RunKey]) -> list[bool]:
    """Return for each of *keys* whether its run is stored."""
    wanted = columns(((place, *key) for place, key in enumerate(keys)), 4)
    rows = await driver.fetch(_POSTGRESQL, *wanted, timeout=ANSWER_WITHIN_S)
    return _at_places(rows, len(keys))


async def find_sqlite(driver: aiosqlite.Connection, keys: Sequence[RunKey]) -> list[bool]:
    """Return for each of *keys* whether its run is stored."""
    rows = await driver.execute_fetchall(_SQLITE, (json.dumps(keys),))
    return _at_places(rows, len(keys))


def _at_places(rows: Iterable[Any], count: int) -> list[bool]:
    found = {row[0] for row in rows}
    return [place in found for place in range(count)]
