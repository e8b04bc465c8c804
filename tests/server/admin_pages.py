"""How fast the operator's pages are: p50 and the slowest, of a filled database.

    python -m tests.server.admin_pages [--messages 1000000] [--users 10000] [DATABASE_URL]

Fills the database, unless it is, and then loads each page 31 times over HTTP. Without a URL an SQLite
file is made, and a PostgreSQL started, which are gone afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import make_url

from agno_sql.memory.sql import SQLMemory
from agno_sql.server import ApiKeyAuth
from tests.faults.checks import sync_url
from tests.server.admin.shop import shop_agent
from tests.server.admin.visitor import Visitor
from tests.support.http import served
from tests.support.postgres import databases

LOADS: Final = 31
DAYS: Final = 60
_PER_SESSION: Final = 50
_TEXT: Final = "Could you please tell me where my order is? I have been waiting for two weeks now. "
# Each user has as many messages as any other, in sessions of 50, at times of the last 60 days.
_AGE: Final = "(u * 7919 + s * 104729) % 86400 + 86400 * ((u * 31 + s * 17) % {days})"
_SESSIONS: Final = """
CREATE TEMP TABLE sessions AS
WITH RECURSIVE us (u) AS (SELECT 0 UNION ALL SELECT u + 1 FROM us WHERE u < {users} - 1),
ss (s) AS (SELECT 0 UNION ALL SELECT s + 1 FROM ss WHERE s < {sessions} - 1)
SELECT 'user-' || u AS user_id, 'session-' || s AS session_id, {age} AS age FROM us CROSS JOIN ss"""
_CONVERSATIONS: Final = """
INSERT INTO conversations
    (user_id, session_id, first_seq, last_seq, message_count, created_at, last_active_at)
SELECT user_id, session_id, 1, {n}, {n}, {begin}, {begin} FROM sessions"""
_MESSAGES: Final = """
INSERT INTO messages (user_id, session_id, seq, role, content, created_at, run_id, run_step)
WITH RECURSIVE ns (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ns WHERE n < {n})
SELECT user_id, session_id, n, CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
    '{text}' || n, {begin}, 'run-' || ((n + 1) / 2), 1 - n % 2
FROM sessions CROSS JOIN ns"""
_RUNS: Final = """
INSERT INTO runs
    (user_id, session_id, run_id, agent_id, status, attempt, input_sha256, first_seq, last_seq,
     model, input_tokens, output_tokens, started_at, finished_at)
WITH RECURSIVE ns (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ns WHERE n < {n} / 2)
SELECT user_id, session_id, 'run-' || n, 'tester', CASE n % 25 WHEN 7 THEN 'failed' ELSE 'completed' END,
    1, '{sha}', 2 * n - 1, 2 * n, 'gpt-5-mini', 400, 40, {begin}, {begin}
FROM sessions CROSS JOIN ns"""


def fill(url: str, *, messages: int, users: int) -> None:
    """Store *messages* messages of *users* users, unless there are any."""
    is_sqlite = "sqlite" in url
    begin = (
        "strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || age || ' seconds') || '000'"
        if is_sqlite
        else "now() - age * interval '1 second'"
    )
    named: dict[str, Any] = {
        "users": users,
        "sessions": max(1, messages // users // _PER_SESSION),
        "n": _PER_SESSION,
        "age": _AGE.format(days=DAYS),
        "begin": begin,
        "text": _TEXT,
        "sha": "0" * 64,
    }
    parts = [part.format(**named) for part in (_SESSIONS, _CONVERSATIONS, _MESSAGES, _RUNS)]
    if is_sqlite:
        with closing(sqlite3.connect(str(make_url(url).database))) as file, file:
            if file.execute("SELECT 1 FROM conversations LIMIT 1").fetchone() is None:
                for part in (*parts, "ANALYZE"):
                    file.execute(part)
        return
    with psycopg.connect(sync_url(url), autocommit=True) as server:
        if server.execute("SELECT 1 FROM conversations LIMIT 1").fetchone() is None:
            server.execute("SET session_replication_role = replica")
            for part in (*parts, "VACUUM ANALYZE"):
                server.execute(part)


async def measure(url: str, user: str) -> None:
    """Load each page, and print how long that took."""
    session = {"user_id": user, "session_id": "session-0"}
    pages: list[tuple[str, dict[str, str]]] = [
        ("", {}),
        ("users", {}),
        ("users", {"prefix": "user-12"}),
        ("user", {"user_id": user}),
        ("session", session),
        ("runs", session),
        ("clear", session),
        ("erase", {"user_id": user}),
        ("clean-up", {"days": "50"}),
        ("clean-up", {"days": "1"}),
    ]
    async with SQLMemory.open(url) as memory:
        _, key = await memory.api_keys.create("measure", is_admin=True)
        async with served(shop_agent(memory), auth=[ApiKeyAuth(memory.api_keys)]) as client:
            visitor = Visitor(client)
            await visitor.log_in(key)
            for page, params in pages:
                times = []
                for _ in range(LOADS):
                    began = time.perf_counter()
                    response = await visitor.get(page, **params)
                    times.append((time.perf_counter() - began) * 1000)
                    assert response.status_code == 200, response.text
                name = f"/admin/{page} {next(iter(params.items()), '')}"
                sys.stdout.write(
                    f"  {name:45} p50 {statistics.median(times):6.1f} ms, slowest {max(times):6.1f}\n"
                )
        found = await memory.operator.statistics()
        sys.stdout.write(
            f"  statistics of {found.kept.messages:,} messages took {found.took.total_seconds():.2f} s"
            " in the background\n"
        )


async def run(url: str, *, messages: int, users: int) -> None:
    """Fill and measure one database."""
    async with SQLMemory.open(url, migrate=True):
        pass
    began = time.perf_counter()
    await asyncio.to_thread(fill, url, messages=messages, users=users)
    name = make_url(url).get_backend_name()
    sys.stdout.write(f"{name}, filled in {time.perf_counter() - began:.0f} s\n")
    await measure(url, f"user-{users // 2}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    asked = parser.parse_args()
    sizes = {"messages": asked.messages, "users": asked.users}
    if asked.url:
        asyncio.run(run(asked.url, **sizes))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(f"sqlite:///{Path(folder) / 'pages.db'}", **sizes))
    with databases(18) as maker, maker.fresh() as url:
        asyncio.run(run(url, **sizes))


if __name__ == "__main__":
    main()
