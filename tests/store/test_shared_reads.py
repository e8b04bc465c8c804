"""Reads that are asked for at once share a query, and each gets what it would get alone."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from agno_sql.errors import CorruptRecordError
from agno_sql.memory.in_memory import InMemory
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall, Usage
from agno_sql.runs import RunKey
from tests.agent.models import DEADLINE_S, contents
from tests.faults.checks import without_leaks
from tests.store.examined import plant
from tests.store.test_group_commit import executed, lease_of, new_run
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agno_sql.memory.protocol import Memory

pytestmark = pytest.mark.usefixtures("one_queue")
CAPACITY = 6
USERS = ["pruned", "full of system", "calls", "cleared", "short", "nobody", "o'neil\\\" 🦊"]
LIMITS = [None, 0, 1, 3, 100, 2**70]
BEFORES = [None, 0, 1, 4, 8, 2**70]


async def talk(memory: Memory) -> None:
    """Let there be conversations of every kind: pruned, with system messages old and new, empty."""
    for user in ("pruned", "full of system", USERS[-1]):
        for n in range(9):
            is_system = n in (0, 4) or (user == "full of system" and n % 2 == 0)
            await memory.add(Message.system(f"{n}") if is_system else Message.user(f"{n}"), user)
    calls = Message.assistant("", [ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}")])
    results = [Message.tool(f"{n}", tool_call_id=f"c{n}") for n in (1, 2)]
    for _ in range(3):
        await memory.extend([Message.user("?"), calls, *results], "calls")
    await memory.extend([Message.user("old"), Message.system("old")], "cleared")
    await memory.clear("cleared")
    await memory.add(Message.user("only"), "short")


@pytest.fixture
async def memory(database_url: str) -> AsyncIterator[SQLMemory]:
    async with SQLMemory.open(database_url, capacity=CAPACITY, clock=FakeClock()) as opened:
        await talk(opened)
        yield opened


@pytest.mark.guarantee("G58")
async def test_each_reader_gets_what_the_model_tells_in_few_queries(memory: SQLMemory) -> None:
    model = InMemory(CAPACITY, clock=FakeClock())
    await talk(model)
    asked = list(product(USERS, LIMITS, BEFORES))
    with executed() as seen:
        answers = await asyncio.gather(
            *(memory.get_messages(user, limit=limit, before=seq) for user, limit, seq in asked)
        )
    for (user, limit, seq), found in zip(asked, answers, strict=True):
        assert found == await model.get_messages(user, limit=limit, before=seq)
    shared = [sql for sql in seen if sql in ("WITH wanted AS", "SELECT wanted.place, m.seq,")]
    assert 1 <= len(shared) <= 4


@pytest.mark.guarantee("G58")
async def test_a_run_is_shown_all_system_messages_and_the_newest_others(memory: SQLMemory) -> None:
    for user, limit in product(USERS[:5], [None, 0, 1, 3, 100]):
        before = await memory.get_messages(user)
        begun = await memory.run_log.begin(
            lease := lease_of(f"r-{limit}", user), new_run(f"r-{limit}"), limit=limit
        )
        assert begun is not None
        others = [message for message in before if message.role != "system"]
        newest = others if limit is None else others[max(0, len(others) - limit) :]
        system = [message for message in before if message.role == "system"]
        assert list(begun.history) == sorted([*system, *newest], key=by_seq)
        answer = Message(role="assistant", content="hi", run_id=f"r-{limit}", run_step=1)
        await memory.run_log.complete(lease, answer, usage=Usage(1, 1))


@pytest.mark.guarantee("G58")
async def test_each_run_is_found_by_its_own_key_in_few_queries(memory: SQLMemory) -> None:
    for user in USERS:
        begun = await memory.run_log.begin(lease_of("r-1", user), new_run("r-1"), limit=0)
        assert begun is not None
    sessions, names = ("default", "other"), ("r-1", "r-2", "'")
    keys = [RunKey(*key) for key in product([*USERS, "mallory"], sessions, names)]
    with executed() as seen:
        found = await asyncio.gather(*map(memory.run_log.find, keys))
    for key, run in zip(keys, found, strict=True):
        assert (run is not None) == (key in [(user, "default", "r-1") for user in USERS])
        assert run is None or (run.record.user_id, len(run.messages)) == (key.user_id, 1)
    shared = [sql for sql in seen if sql in ("SELECT wanted.key FROM", "SELECT wanted.place FROM")]
    assert 1 <= len(shared) <= 2
    assert len(seen) == len(shared) + 2 * len(USERS)


def by_seq(message: Message) -> int:
    return message.seq or 0


@pytest.mark.guarantee("G58")
async def test_a_row_that_cannot_be_decoded_is_an_error_for_its_own_reader_alone(
    database_url: str, memory: SQLMemory
) -> None:
    plant(database_url, "UPDATE messages SET content = '\x10?' WHERE user_id = 'short'")
    found, broken, also = await read(memory, "pruned", "short", "calls")
    assert isinstance(broken, CorruptRecordError)
    assert "user 'short'" in str(broken)
    assert (len(found), len(also)) == (6, 4)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "planted",
    [
        "created_at = 5",
        "created_at = 1.5",
        "created_at = x'00'",
        "created_at = '2026-11-26'",
        "created_at = 'tomorrow'",
        "content = x'00'",
        "run_id = 'with blank', run_step = 0",
        "run_id = '', run_step = 0",
        f"run_id = '{'x' * 129}', run_step = 0",
        "run_id = 'é', run_step = 0",
        "run_id = 'r', run_step = -1",
        "run_id = 'r', run_step = 'first'",
        "input_tokens = 5",
        "input_tokens = 'many', output_tokens = 1",
    ],
)
async def test_what_sqlite_keeps_though_no_column_is_for_it_is_not_handed_on(
    sqlite_url: str, planted: str
) -> None:
    async with SQLMemory.open(sqlite_url, capacity=CAPACITY) as memory:
        await memory.add(Message.user("x"), "alice")
        plant(sqlite_url, f"UPDATE messages SET {planted}")
        with pytest.raises(CorruptRecordError, match="message 1 of user 'alice'"):
            await memory.get_messages("alice")


async def test_whatever_number_of_tokens_a_provider_told_reads_back(sqlite_url: str) -> None:
    told = [Usage(-1, 0), Usage(0, 2**62), Usage(1.5, 0)]  # type: ignore[arg-type]
    async with SQLMemory.open(sqlite_url, capacity=CAPACITY) as memory:
        for usage in told:
            await memory.add(Message(role="assistant", content="x", usage=usage), "alice")
        assert [message.usage for message in await memory.get_messages("alice")] == told


async def test_a_title_that_is_no_text_is_not_handed_on(sqlite_url: str) -> None:
    async with SQLMemory.open(sqlite_url) as memory:
        await memory.add(Message.user("x"), "alice")
        plant(sqlite_url, "UPDATE messages SET content = x'00'")
        with pytest.raises(CorruptRecordError, match="a message of user 'alice'"):
            await memory.sessions("alice")


async def test_a_time_that_python_does_not_know_is_an_error_for_its_own_reader_alone(
    postgres_url: str,
) -> None:
    async with SQLMemory.open(postgres_url, capacity=CAPACITY) as memory:
        await talk(memory)
        plant(
            postgres_url, "UPDATE messages SET created_at = '20000-01-01' WHERE user_id = 'short'"
        )
        found, broken, also = await read(memory, "pruned", "short", "calls")
        assert isinstance(broken, Exception)
        assert (len(found), len(also)) == (6, 4)


async def read(memory: SQLMemory, *users: str) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.gather(*map(memory.get_messages, users), return_exceptions=True)


async def test_who_has_written_reads_it_however_long_the_query_had_to_wait(
    database_url: str,
) -> None:
    """What a query is asked for is told when it can begin, so nobody joins one that is older."""
    async with SQLMemory.open(database_url):
        pass
    engine = create_async_engine(database_url, pool_size=2, max_overflow=0)
    async with without_leaks(engine, database_url):
        memory = SQLMemory(engine)
        async with engine.connect(), engine.connect():
            early = asyncio.create_task(memory.get_messages("bob"))
            await asyncio.sleep(0)

            async def write_and_read(user: str) -> list[Message]:
                await memory.add(Message.user("mine"), user)
                return await memory.get_messages(user)

            later = [asyncio.create_task(write_and_read(f"user-{n}")) for n in range(20)]
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            assert [contents(await own) for own in later] == [["mine"]] * 20
            assert await early == []
