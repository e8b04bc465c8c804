"""The guard that watches all other tests: it has to see what it is there for."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import aiosqlite
import asyncpg
import pytest
from sqlalchemy import create_engine, text

from tests.support.postgres import CHECKOUT
from tests.support.tenant_guard import CROSS_TENANT_REASONS, TenantGuard, unpinned_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

PINNED = [
    "SELECT 1",
    "CREATE VIEW v AS SELECT * FROM messages",
    "INSERT INTO messages (user_id) VALUES (?)",
    "SELECT * FROM messages WHERE user_id = ?",
    "SELECT * FROM messages WHERE messages.user_id = $1::VARCHAR AND seq > $2::BIGINT",
    "SELECT * FROM public.messages AS m WHERE :user = m.user_id",
    "SELECT seq AS messages FROM other",
    "SELECT * FROM messages WHERE user_id IN (?, ?)",
    "SELECT * FROM messages WHERE user_id = ANY ($1)",
    "SELECT * FROM messages WHERE (user_id, session_id) IN (VALUES (?, ?), (?, ?))",
    "SELECT * FROM messages WHERE (user_id = ? AND seq < ?) OR (user_id = ? AND seq < ?)",
    "SELECT * FROM messages m, conversations c WHERE m.user_id = c.user_id AND c.user_id = ?",
    (
        "SELECT * FROM conversations c LEFT JOIN messages m ON (m.user_id, m.session_id)"
        " = (c.user_id, c.session_id) WHERE c.user_id = ?"
    ),
    "SELECT * FROM (messages m JOIN batch b ON m.user_id = b.user_id)",
    "DELETE FROM messages WHERE user_id = ? AND seq IN (SELECT seq FROM messages WHERE user_id = ?)",
    "DELETE FROM messages USING batch AS b WHERE messages.user_id = b.user_id",
    "UPDATE conversations SET last_seq = ? WHERE user_id = ?",
    (
        "SELECT (SELECT count(*) FROM messages m WHERE m.user_id = c.user_id) FROM conversations c"
        " WHERE c.user_id = ? FOR UPDATE OF c"
    ),
    (
        "INSERT INTO conversations AS c (user_id) VALUES (?) ON CONFLICT (user_id)"
        " DO UPDATE SET last_seq = c.last_seq + 1 WHERE c.last_seq = ? RETURNING last_seq"
    ),
    "WITH gone AS (DELETE FROM messages WHERE user_id = ? RETURNING seq) SELECT * FROM gone",
]

UNPINNED = [
    "SELECT * FROM messages",
    "select * from messages -- WHERE user_id = 'me'",
    "SELECT 'WHERE user_id = ' FROM \"messages\" WHERE session_id = ?",
    "SELECT user_id FROM messages WHERE seq = 1 ORDER BY user_id",
    "SELECT * FROM messages WHERE user_id = ? OR seq = 1",
    "SELECT * FROM messages WHERE user_id = ? UNION ALL SELECT * FROM messages",
    "SELECT * FROM messages WHERE user_id <> ?",
    "SELECT * FROM messages WHERE user_id > ?",
    "SELECT * FROM messages WHERE user_id NOT IN (?)",
    "SELECT * FROM messages WHERE NOT user_id = ?",
    "SELECT * FROM messages WHERE user_id = user_id",
    "SELECT * FROM messages m WHERE m.user_id = lower(m.user_id)",
    "SELECT * FROM messages m, conversations c WHERE m.user_id = c.user_id",
    "SELECT * FROM messages m, conversations c WHERE c.user_id = ?",
    "SELECT * FROM conversations c JOIN messages m ON m.seq = c.last_seq WHERE c.user_id = ?",
    "DELETE FROM messages WHERE user_id IN (SELECT user_id FROM conversations)",
    "DELETE FROM conversations WHERE last_active_at < ?",
    "UPDATE conversations SET user_id = ?",
    "WITH gone AS (DELETE FROM messages WHERE seq < ? RETURNING seq) SELECT * FROM gone",
    "INSERT INTO copies SELECT * FROM messages ON CONFLICT DO NOTHING",
    "EXPLAIN SELECT * FROM messages",
]


@pytest.mark.parametrize("statement", PINNED)
def test_a_statement_that_keeps_to_its_users_passes(statement: str) -> None:
    assert unpinned_tables(statement) == ()


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("statement", UNPINNED)
def test_a_statement_that_reaches_other_users_is_seen(statement: str) -> None:
    assert unpinned_tables(statement)


def test_a_violation_is_kept_even_if_the_caller_swallows_every_error(
    tenant_guard: TenantGuard,
) -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE messages (user_id TEXT)"))
        connection.execute(text("SELECT * FROM messages WHERE user_id = :u"), {"u": "alice"})
        connection.exec_driver_sql("SELECT * FROM messages")
    engine.dispose()
    [violation] = tenant_guard.take()
    assert "messages without user_id, no reason" in violation


async def test_what_goes_straight_to_a_driver_is_seen_too(
    tenant_guard: TenantGuard, postgres_url: str
) -> None:
    server = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await server.fetch("DELETE FROM messages")
    await server.close()
    async with aiosqlite.connect(":memory:") as file:
        await file.execute("CREATE TABLE messages (user_id TEXT)")
        await file.execute_fetchall("SELECT * FROM messages")
        await file.executemany("DELETE FROM messages WHERE user_id < ?", [("alice",)])
    assert len(tenant_guard.take()) == 3


def test_a_reason_that_is_not_listed_does_not_count() -> None:
    guard = TenantGuard()
    guard.check("DELETE FROM messages", {"cross_tenant": "because"})
    [violation] = guard.take()
    assert "unlisted reason 'because'" in violation


def test_a_listed_reason_lets_a_statement_pass() -> None:
    guard = TenantGuard()
    for reason in CROSS_TENANT_REASONS:
        guard.check("DELETE FROM messages", {"cross_tenant": reason})
    assert (guard.take(), guard.reasons) == ([], set(CROSS_TENANT_REASONS))


@pytest.mark.guarantee("G8")
def test_the_listed_reasons_are_those_that_the_source_gives() -> None:
    package = CHECKOUT / "agno_sql"
    given = [
        reason
        for path in package.rglob("*.py")
        for reason in reasons_given(ast.parse(path.read_text("utf-8")))
    ]
    assert given, "no reason found: did the execution option change its name?"
    assert set(given) == CROSS_TENANT_REASONS


def reasons_given(module: ast.Module) -> Iterator[str]:
    """Yield the text behind each ``cross_tenant``, as a keyword or in a dict."""
    for node in ast.walk(module):
        match node:
            case ast.keyword(arg="cross_tenant", value=value):
                yield ast.literal_eval(value)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "cross_tenant":
                        yield ast.literal_eval(value)
