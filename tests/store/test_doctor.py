"""What the doctor finds: each fault, where it was planted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import make_url

from agno_sql.errors import StoreError
from agno_sql.memory.sql import SQLMemory
from agno_sql.store import migrate
from agno_sql.store.doctor import STALE_AFTER
from tests.store.examined import (
    LEASE,
    Place,
    findings,
    places,
    plant,
    tables,
    write_two_conversations,
)
from tests.support.clock import FakeClock

ALICE: Final = "user_id = 'alice'"
BOB: Final = "user_id = 'bob'"
OF_ALICE: Final = {"user_id": "alice", "session_id": "default"}
OF_BOB: Final = {"user_id": "bob", "session_id": "default"}


@dataclass(frozen=True)
class Fault:
    name: str
    statements: tuple[str, ...]
    found: tuple[Place, ...]
    database: str = ""


def fault(name: str, *statements: str, found: list[Place], database: str = "") -> Fault:
    return Fault(name, statements, tuple(found), database)


FAULTS: Final = [
    fault(
        "a wrong counter",
        f"UPDATE conversations SET message_count = 9 WHERE {ALICE}",
        found=[{"check": "message_count", **OF_ALICE}],
    ),
    fault(
        "the first message is gone",
        f"DELETE FROM messages WHERE {ALICE} AND seq = 1",
        f"UPDATE conversations SET message_count = 4 WHERE {ALICE}",
        found=[{"check": "seq_gap", **OF_ALICE, "seq": 1}],
    ),
    fault(
        "a gap behind what was pruned",
        f"DELETE FROM messages WHERE {ALICE} AND seq IN (2, 4)",
        f"UPDATE conversations SET first_seq = 3, message_count = 3 WHERE {ALICE}",
        found=[
            {"check": "seq_gap", **OF_ALICE, "seq": 4},
            {"check": "torn_exchange", **OF_ALICE, "seq": 3, "run_id": "r1"},
        ],
    ),
    fault(
        "two gaps",
        f"DELETE FROM messages WHERE {ALICE} AND seq IN (2, 5)",
        f"UPDATE conversations SET message_count = 3 WHERE {ALICE}",
        found=[{"check": "seq_gap", **OF_ALICE, "seq": 2}],
    ),
    fault(
        "the last message is gone",
        f"DELETE FROM messages WHERE {ALICE} AND seq = 5",
        f"UPDATE conversations SET message_count = 4 WHERE {ALICE}",
        found=[{"check": "seq_gap", **OF_ALICE, "seq": 5}],
    ),
    fault(
        "all messages are gone",
        f"DELETE FROM messages WHERE {ALICE}",
        found=[
            {"check": "message_count", **OF_ALICE},
            {"check": "seq_gap", **OF_ALICE, "seq": 1},
        ],
    ),
    fault(
        "a message that should be pruned",
        f"UPDATE conversations SET first_seq = 3 WHERE {ALICE}",
        found=[{"check": "below_first_seq", **OF_ALICE, "seq": 2}],
    ),
    fault(
        "a message beyond the last number",
        f"UPDATE conversations SET last_seq = 4 WHERE {ALICE}",
        f"UPDATE runs SET last_seq = 4 WHERE {ALICE}",
        found=[{"check": "above_last_seq", **OF_ALICE, "seq": 5}],
    ),
    fault(
        "a conversation without its row",
        f"DELETE FROM conversations WHERE {ALICE}",
        found=[
            {"check": "orphan", **OF_ALICE, "run_id": "r1"},
            {"check": "orphan", **OF_ALICE, "seq": 1},
        ],
    ),
    fault(
        "a broken escape in a message",
        f"UPDATE messages SET content = 'a\x10b' WHERE {ALICE} AND seq = 2",
        found=[{"check": "undecodable", **OF_ALICE, "seq": 2}],
    ),
    fault(
        "tool calls of another shape",
        f"UPDATE messages SET tool_calls = '[7]' WHERE {BOB} AND seq = 2",
        found=[{"check": "undecodable", **OF_BOB, "seq": 2}],
    ),
    fault(
        "a broken escape in a run",
        f"UPDATE runs SET model = 'a\x10b' WHERE {ALICE}",
        found=[{"check": "undecodable", **OF_ALICE, "run_id": "r1"}],
    ),
    fault(
        "text that is no UTF-8",
        f"UPDATE messages SET content = CAST(x'ff' AS TEXT) WHERE {ALICE} AND seq IN (2, 4)",
        found=[{"check": "undecodable", **OF_ALICE, "seq": seq} for seq in (2, 4)],
        database="sqlite",
    ),
    fault(
        "times that are none",
        f"UPDATE conversations SET created_at = 'once' WHERE {ALICE}",
        f"UPDATE messages SET created_at = 'once' WHERE {ALICE} AND seq = 5",
        f"UPDATE runs SET started_at = 'once' WHERE {BOB}",
        found=[
            {"check": "undecodable", **OF_ALICE},
            {"check": "undecodable", **OF_BOB, "run_id": "r2"},
            {"check": "undecodable", **OF_ALICE, "seq": 5},
        ],
        database="sqlite",
    ),
    fault(
        "times beyond Python's",
        f"UPDATE conversations SET created_at = '20000-01-01' WHERE {ALICE}",
        f"UPDATE messages SET created_at = '20000-01-01' WHERE {ALICE} AND seq = 5",
        f"UPDATE runs SET started_at = '0044-03-15 BC' WHERE {BOB}",
        found=[
            {"check": "undecodable", **OF_ALICE},
            {"check": "undecodable", **OF_BOB, "run_id": "r2"},
            {"check": "undecodable", **OF_ALICE, "seq": 5},
        ],
        database="postgresql",
    ),
    fault(
        "held for a run that is not known",
        f"DELETE FROM runs WHERE {BOB}",
        found=[{"check": "held_run", **OF_BOB, "run_id": "r2"}],
    ),
    fault(
        "held for a run that has ended, its last call torn",
        f"UPDATE runs SET status = 'failed', finished_at = started_at, last_seq = 2 WHERE {BOB}",
        found=[
            {"check": "held_run", **OF_BOB, "run_id": "r2"},
            {"check": "torn_exchange", **OF_BOB, "seq": 2, "run_id": "r2"},
        ],
    ),
    fault(
        "a running run that holds nothing",
        "UPDATE conversations SET run_id = NULL, run_first_seq = NULL, lease_expires_at = NULL"
        f" WHERE {BOB}",
        found=[{"check": "unheld_run", **OF_BOB, "run_id": "r2"}],
    ),
    fault(
        "a lease without its time",
        f"UPDATE conversations SET lease_expires_at = NULL WHERE {BOB}",
        found=[{"check": "lease", **OF_BOB, "run_id": "r2"}],
    ),
    fault(
        "a lease without its token",
        f"UPDATE conversations SET lease_token = NULL WHERE {BOB}",
        found=[{"check": "lease", **OF_BOB, "run_id": "r2"}],
    ),
    fault(
        "a lease without its run",
        f"UPDATE conversations SET run_id = NULL WHERE {BOB}",
        found=[
            {"check": "lease", **OF_BOB},
            {"check": "unheld_run", **OF_BOB, "run_id": "r2"},
        ],
    ),
    fault(
        "a run that begins elsewhere than its lease says",
        f"UPDATE conversations SET run_first_seq = 2 WHERE {BOB}",
        found=[{"check": "run_range", **OF_BOB, "run_id": "r2"}],
    ),
    fault(
        "a run that ends beyond its conversation",
        f"UPDATE runs SET last_seq = 6 WHERE {ALICE}",
        found=[{"check": "run_range", **OF_ALICE, "run_id": "r1"}],
    ),
    fault(
        "a run whose messages are all pruned",
        f"DELETE FROM messages WHERE {ALICE} AND seq > 1",
        f"UPDATE conversations SET first_seq = 6, message_count = 1 WHERE {ALICE}",
        found=[{"check": "run_range", **OF_ALICE, "run_id": "r1"}],
    ),
    fault(
        "a call of an ended run without its result",
        f"DELETE FROM messages WHERE {ALICE} AND seq = 4",
        f"UPDATE messages SET seq = 4 WHERE {ALICE} AND seq = 5",
        f"UPDATE conversations SET last_seq = 4, message_count = 4 WHERE {ALICE}",
        f"UPDATE runs SET last_seq = 4 WHERE {ALICE}",
        found=[{"check": "torn_exchange", **OF_ALICE, "seq": 3, "run_id": "r1"}],
    ),
]


@pytest.mark.guarantee("G50")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_is_found_where_it_is(fault: Fault, database_url: str) -> None:
    if fault.database and not database_url.startswith(fault.database):
        return  # it has a twin for this database
    clock = FakeClock()
    await write_two_conversations(database_url, clock)
    assert await findings(database_url, now=clock.now()) == []

    plant(database_url, *fault.statements)

    found = await findings(database_url, now=clock.now())
    assert places(found) == list(fault.found)
    assert all(finding.detail.isprintable() for finding in found)


async def test_an_interrupted_run_is_told_when_nobody_has_recovered_it(database_url: str) -> None:
    clock = FakeClock()
    await write_two_conversations(database_url, clock)
    forgotten = clock.now() + LEASE + STALE_AFTER

    assert await findings(database_url, now=forgotten - timedelta(microseconds=1)) == []
    (finding,) = await findings(database_url, now=forgotten)

    assert places([finding]) == [{"check": "stale_run", **OF_BOB, "run_id": "r2"}]
    assert "recover() of agent 'tester'" in finding.detail
    assert f"{clock.now() + LEASE:%Y-%m-%d %H:%M:%S} UTC" in finding.detail


@pytest.mark.parametrize("revision", ["0003", "base"])
async def test_tables_of_another_version_are_the_only_finding(
    database_url: str, revision: str
) -> None:
    clock = FakeClock()
    await write_two_conversations(database_url, clock)
    plant(database_url, "UPDATE conversations SET message_count = 9")
    async with tables(database_url) as database:
        await database.write(lambda conn: migrate.downgrade(conn, revision))
    (finding,) = await findings(database_url, now=clock.now())
    assert places([finding]) == [{"check": "schema"}]
    assert "agno-sql db upgrade" in finding.detail


async def test_a_refusal_is_an_error_and_no_finding(postgres_url: str) -> None:
    clock = FakeClock()
    await write_two_conversations(postgres_url, clock)
    plant(postgres_url, "CREATE ROLE reader LOGIN", "GRANT SELECT ON agno_sql_version TO reader")
    try:
        as_reader = make_url(postgres_url).set(username="reader")
        with pytest.raises(StoreError, match="refused"):
            await findings(as_reader.render_as_string(), now=clock.now())
    finally:
        plant(postgres_url, "DROP OWNED BY reader", "DROP ROLE reader")


async def test_faults_are_found_on_every_page_of_a_table(database_url: str) -> None:
    """More conversations, runs and messages than are read at once."""
    at = "'2026-03-01 12:00:00.000000'"
    last = 2999
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
    steps = "(SELECT 1 AS s UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4) AS steps"
    key = "'u' || CAST(10000 + i AS varchar), 'default'"
    async with SQLMemory.open(database_url, migrate=True):
        pass
    plant(
        database_url,
        "INSERT INTO conversations (user_id, session_id, first_seq, last_seq, message_count,"
        f" created_at, last_active_at) {numbers} SELECT {key}, 1, 4, 4, {at}, {at} FROM n",
        "INSERT INTO messages (user_id, session_id, seq, role, content, created_at)"
        f" {numbers} SELECT {key}, s, 'user', 'hi', {at} FROM n CROSS JOIN {steps}",
        "INSERT INTO runs (user_id, session_id, run_id, agent_id, status, attempt, input_sha256,"
        " first_seq, last_seq, model, input_tokens, output_tokens, started_at, finished_at)"
        f" {numbers} SELECT {key}, 'r' || CAST(s AS varchar), 'a', 'completed', 1, '', s, s, 'm',"
        f" 0, 0, {at}, {at} FROM n CROSS JOIN {steps}",
    )
    assert await findings(database_url, now=FakeClock().now()) == []
    users = [f"u{10000 + i}" for i in (0, 999, 1000, 1250, 1499, last)]
    those = ", ".join(f"'{user}'" for user in users)
    plant(
        database_url,
        f"UPDATE conversations SET message_count = 5 WHERE user_id IN ({those})",
        f"UPDATE runs SET agent_id = '\x10' WHERE run_id = 'r4' AND user_id IN ({those})",
        f"UPDATE messages SET content = '\x10' WHERE seq = 4 AND user_id IN ({those})",
    )
    found = places(await findings(database_url, now=FakeClock().now()))
    assert found == [
        {"check": check, "user_id": user, "session_id": "default", **place}
        for check, place in (
            ("message_count", {}),
            ("undecodable", {"run_id": "r4"}),
            ("undecodable", {"seq": 4}),
        )
        for user in users
    ]
