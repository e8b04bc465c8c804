"""Group commit on SQLite: one transaction with few statements stores what many conversations write.

Each statement is a hop to the connection's thread and back, which costs more than the statement
does, so their number does not grow with the writes. The transaction holds the write lock from its
beginning: what it reads is what it decides on. A write that finds the conversation not as it needs
it is left out, and goes the portable way by itself.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from agno_sql.store.faults import surely_rolled_back, unknown_commit
from agno_sql.store.rows import message_row
from agno_sql.store.text import encode
from agno_sql.store.types import sqlite_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from aiosqlite import Connection

    from agno_sql.store.writes import Begin, Group, Write

_Row = tuple[Any, ...]
_MOST_ROWS: Final = 64  # of a statement: 832 parameters, where any SQLite takes 999
_LOOK: Final = """
SELECT
    given.key, c.first_seq, c.last_seq, c.message_count, c.run_id, c.run_first_seq, c.lease_token,
    c.lease_expires_at%s
FROM json_each(?) given JOIN conversations c
    ON c.user_id = json_extract(given.value, '$[0]')
    AND c.session_id = json_extract(given.value, '$[1]')
"""
_FOR_A_PRUNE: Final = """,
    (
        SELECT m.seq FROM messages m
        WHERE m.user_id = c.user_id AND m.session_id = c.session_id AND m.role <> 'tool'
            AND m.seq >= c.first_seq + c.message_count + json_extract(given.value, '$[2]') - ?
        ORDER BY m.seq LIMIT 1
    ),
    (
        SELECT min(m.seq) FROM messages m
        WHERE m.user_id = c.user_id AND m.session_id = c.session_id
            AND m.role = 'system' AND m.seq >= c.first_seq
    )"""
_LOOK_ONLY: Final = _LOOK % ""
_LOOK_TO_PRUNE: Final = _LOOK % _FOR_A_PRUNE
_PUT_CONVERSATION: Final = """
INSERT INTO conversations (
    user_id, session_id, first_seq, last_seq, message_count, run_id, run_first_seq, lease_token,
    lease_expires_at, created_at, last_active_at
) VALUES %s
ON CONFLICT (user_id, session_id) DO UPDATE SET
    first_seq = excluded.first_seq, last_seq = excluded.last_seq,
    message_count = excluded.message_count, run_id = excluded.run_id,
    run_first_seq = excluded.run_first_seq, lease_token = excluded.lease_token,
    lease_expires_at = excluded.lease_expires_at,
    last_active_at = max(last_active_at, excluded.last_active_at)
"""
_PUT_MESSAGE: Final = """
INSERT INTO messages (
    user_id, session_id, seq, role, content, created_at, name, tool_call_id, tool_calls, run_id,
    run_step, input_tokens, output_tokens
) VALUES %s
"""
_BEGIN_RUN: Final = """
INSERT INTO runs (
    user_id, session_id, run_id, agent_id, status, attempt, input_sha256, first_seq, last_seq,
    model, input_tokens, output_tokens, started_at
) VALUES %s
"""
_END_RUN: Final = """
UPDATE runs
SET status = 'completed', last_seq = ?, finished_at = ?, input_tokens = ?, output_tokens = ?
WHERE user_id = ? AND session_id = ? AND run_id = ?
"""
_PRUNE: Final = """
DELETE FROM messages WHERE user_id = ? AND session_id = ? AND seq >= ? AND seq < ?
"""
_FORGET_RUNS: Final = """
DELETE FROM runs WHERE user_id = ? AND session_id = ? AND last_seq < ?
"""


@dataclass(frozen=True, slots=True)
class _Conversation:
    """A conversation's row, and what a prune has to know of its messages.

    ``enough`` is the seq of the first message that is no tool result and may stay once enough are
    deleted, ``system`` that of the first system message that a prune would come across.
    """

    first_seq: int = 1
    last_seq: int = 0
    message_count: int = 0
    run_id: str | None = None
    run_first_seq: int | None = None
    lease_token: str | None = None
    lease_expires_at: str | None = None
    enough: int | None = None
    system: int | None = None

    def lets(self, write: Write) -> bool:
        """Tell whether the fence lets *write* through."""
        if write.lease is None:
            return True
        if write.kind == "begin":
            return self.run_id is None
        return (self.run_id, self.lease_token) == (write.lease.key.run_id, write.lease.token)

    def kept_from(self, group: Group, capacity: int | None) -> int | None:
        """Return the first seq that a prune leaves; ``None`` if it can't be told from here."""
        excess = self.message_count + len(group.messages) - (capacity or 0)
        if capacity is None or not group.first.prunes or excess <= 0:
            return self.first_seq
        bounds = [self.enough, self.run_first_seq if group.first.kind == "append" else None]
        kept = min((bound for bound in bounds if bound is not None), default=None)
        return None if kept is None or (self.system or kept + 1) <= kept else kept


_NEW: Final = _Conversation()


async def store(driver: Connection, begin: Begin, *, capacity: int | None) -> dict[int, int]:
    """Store what *begin* returns in one commit; return the last seq of each group by its index.

    What is not in there was left out, and nothing of it stored.

    Raises:
        OutcomeUnknownError: The disk failed at the commit.
    """
    if driver.in_transaction:  # a hook of a foreign engine has begun one
        await driver.execute_fetchall("ROLLBACK")
    await driver.execute_fetchall("BEGIN IMMEDIATE")
    try:
        groups, at = begin()
        last_seqs = await _store(driver, groups, at=at, capacity=capacity)
        await _commit(driver)
    except BaseException:
        if driver.in_transaction:
            with suppress(sqlite3.Error):  # who still finds it open throws the connection away
                await driver.execute_fetchall("ROLLBACK")
        raise
    return last_seqs


async def _store(
    driver: Connection, groups: Sequence[Group], *, at: datetime, capacity: int | None
) -> dict[int, int]:
    keys = json.dumps([[*group.first.key, len(group.messages)] for group in groups])
    if capacity is None:
        rows = await driver.execute_fetchall(_LOOK_ONLY, (keys,))
    else:
        rows = await driver.execute_fetchall(_LOOK_TO_PRUNE, (capacity, keys))
    found = {row[0]: _Conversation(*row[1:]) for row in rows}
    changes = _Changes(at)
    last_seqs = {}
    for place, group in enumerate(groups):
        before = found.get(place, _NEW)
        kept = before.kept_from(group, capacity)
        if kept is not None and before.lets(group.first):
            last_seqs[place] = changes.add(group, before, kept)
    # One after another in the connection's thread, without a way back here between them.
    done = await asyncio.gather(
        *(
            driver.executemany(sql, _within_transaction(driver, rows))
            for sql, rows in changes.statements()
            if rows
        ),
        return_exceptions=True,
    )
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return last_seqs


def _inserts(sql: str, rows: list[_Row]) -> Iterable[tuple[str, list[_Row]]]:
    """Yield statements that insert *rows*, many at once.

    At each row of its own SQLite's thread would give the interpreter to the event loop, and wait
    until that lets go of it.
    """
    at = 0
    while at < len(rows):
        # Few sizes, so that each is prepared once.
        count = min(_MOST_ROWS, 1 << (len(rows) - at).bit_length() - 1)
        inserted = rows[at : at + count]
        yield _insert(sql, len(inserted[0]), count), [tuple(chain.from_iterable(inserted))]
        at += count


@cache
def _insert(sql: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return sql % ", ".join([row] * count)


def _within_transaction(  # pragma: no cover  (in the connection's thread nothing is measured)
    driver: Connection, rows: Iterable[_Row]
) -> Iterable[_Row]:
    # SQLite ends the transaction by itself where the disk is full, and the statements that stand
    # in line behind the one that failed would each be committed alone.
    for row in rows:
        if not driver.in_transaction:
            return
        yield row


class _Changes:
    """The rows of a batch, by what is done with them."""

    def __init__(self, at: datetime) -> None:
        self._at = at
        self._now = sqlite_time(at)
        self._conversations: list[_Row] = []
        self._messages: list[_Row] = []
        self._begun: list[_Row] = []
        self._ended: list[_Row] = []
        self._pruned: list[_Row] = []
        self._forgotten: list[_Row] = []

    def add(self, group: Group, before: _Conversation, kept: int) -> int:
        """Add what stores *group* and prunes up to *kept*; return its last seq."""
        key, added = group.first.key, len(group.messages)
        last_seq = before.last_seq + added
        count = before.message_count + added - (kept - before.first_seq)
        run = self._run_after(group.first, before)
        self._conversations.append((*key, kept, last_seq, count, *run, self._now, self._now))
        for seq, message in enumerate(group.messages, start=before.last_seq + 1):
            role, text, at, *others = message_row(message, self._at, json.dumps)
            made = self._now if at is self._at else sqlite_time(at)
            self._messages.append((*key, seq, role, text, made, *others))
        self._add_run(group.first, last_seq)
        if kept > before.first_seq:
            self._pruned.append((*key, before.first_seq, kept))
            self._forgotten.append((*key, kept))
        return last_seq

    def statements(self) -> Iterable[tuple[str, list[_Row]]]:
        """Return the statements in their order, each with what it is executed with, once or more."""
        return (
            *_inserts(_PUT_CONVERSATION, self._conversations),
            *_inserts(_PUT_MESSAGE, self._messages),
            *_inserts(_BEGIN_RUN, self._begun),
            (_END_RUN, self._ended),
            (_PRUNE, self._pruned),
            (_FORGET_RUNS, self._forgotten),
        )

    def _run_after(self, write: Write, before: _Conversation) -> tuple[Any, ...]:
        """Return run_id, run_first_seq, lease_token and lease_expires_at after *write*."""
        if write.lease is None:
            return before.run_id, before.run_first_seq, before.lease_token, before.lease_expires_at
        token = write.lease.token
        if write.kind == "complete":
            return None, None, token, None  # the token tells the run that its end was stored
        first_seq = before.last_seq + 1 if write.kind == "begin" else before.run_first_seq
        expires_at = sqlite_time(self._at + write.lease.duration)
        return write.lease.key.run_id, first_seq, token, expires_at

    def _add_run(self, write: Write, last_seq: int) -> None:
        if write.lease is None:
            return
        key = write.lease.key
        if write.new is not None:
            new, digest = write.new, write.new.input_sha256
            agent_id, model = encode(new.agent_id), encode(new.model)
            self._begun.append(
                (*key, agent_id, "running", 1, digest, last_seq, last_seq, model, 0, 0, self._now)
            )
        if write.usage is not None:
            usage = write.usage
            self._ended.append((last_seq, self._now, usage.input_tokens, usage.output_tokens, *key))


async def _commit(driver: Connection) -> None:
    try:
        await driver.execute_fetchall("COMMIT")
    except sqlite3.Error as error:
        if surely_rolled_back(error):
            raise
        raise unknown_commit(error) from error
