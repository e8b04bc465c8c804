"""A disk that is full: what can't be stored is told, nothing is half there, then it goes on."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from agno_sql.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.store.engine import open_engine
from tests.agent.models import (
    ScriptedModel,
    agent_of,
    asks,
    call,
    contents,
    refused_by_a_provider,
    roles,
)
from tests.faults.checks import assert_answered, assert_numbered, runs_in, without_leaks
from tests.faults.disks import SPARE, SmallFile, database_on, mounted
from tests.support.postgres import PrivatePostgres, upgrade_to_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.faults.disks import Disk, SmallFolder

MOST_ADDS: Final = 200
SMALL_LOG: Final = {"max_wal_size": "32MB", "min_wal_size": "32MB"}


def noise(size: int) -> str:
    """Return a text that a database can't compress to less than half of *size*."""
    return secrets.token_hex(size // 2)


async def added_until_refused(memory: SQLMemory, size: int) -> tuple[list[Message], StoreError]:
    """Add for alice until that is an error; return what was acknowledged, and the error."""
    acknowledged: list[Message] = []
    for _ in range(MOST_ADDS):
        # Two at a time: a single message could not be half there.
        two = [Message.user(noise(size)) for _ in range(2)]
        try:
            acknowledged += await memory.extend(two, "alice")
        except StoreError as error:
            return acknowledged, error
    pytest.fail("the disk was never full")


@pytest.fixture(params=["sqlite", "postgres18"])
async def disk_and_engine(
    request: pytest.FixtureRequest, sqlite_url: str
) -> AsyncIterator[tuple[Disk, AsyncEngine]]:
    if request.param == "sqlite":
        async with SQLMemory.open(sqlite_url):
            pass
        async with without_leaks(open_engine(sqlite_url), sqlite_url) as engine:
            yield SmallFile(engine), engine
        return
    with mounted("64m") as disk:
        server: PrivatePostgres = request.getfixturevalue("own_postgres")
        with database_on(disk, server.url) as url:
            async with without_leaks(open_engine(url), url) as engine:
                yield disk, engine


@pytest.mark.guarantee("G49")
async def test_adds_to_a_full_disk_are_refused_whole_and_work_when_there_is_room(
    disk_and_engine: tuple[Disk, AsyncEngine],
) -> None:
    disk, engine = disk_and_engine
    memory = SQLMemory(engine, capacity=None)
    acknowledged = [await memory.add(Message.user("first"), "alice")]
    await disk.fill()
    more, error = await added_until_refused(memory, SPARE // 8)
    acknowledged += more
    assert not isinstance(error, OutcomeUnknownError)
    assert await memory.get_messages("alice") == acknowledged

    await disk.free()
    acknowledged.append(await memory.add(Message.user(noise(SPARE * 4)), "alice"))
    stored = await memory.get_messages("alice")
    assert stored == acknowledged
    assert_numbered(stored)


@pytest.mark.guarantee("G49")
async def test_what_does_not_fit_takes_nothing_with_it_of_what_was_stored_before(
    disk_and_engine: tuple[Disk, AsyncEngine],
) -> None:
    """The conversation is full: what is added would prune it, and others write meanwhile."""
    disk, engine = disk_and_engine
    memory = SQLMemory(engine, capacity=20)
    acknowledged = [await memory.add(Message.user(str(n)), "alice") for n in range(20)]
    await disk.fill()
    # Each is small enough to share a commit; all of them are too much for what is left.
    big = [[Message.user(noise(SPARE // 8))] for _ in range(16)]
    outcomes = await asyncio.gather(
        *(memory.extend(new, "alice") for new in big), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, StoreError)]
    assert refused
    stored = sorted(
        (m for told in outcomes if isinstance(told, list) for m in told), key=lambda m: m.seq or 0
    )
    assert len(stored) + len(refused) == len(big)
    assert await memory.get_messages("alice") == [*acknowledged, *stored][-20:]
    assert await memory.size("alice") == 20


@pytest.mark.guarantee("G49")
async def test_a_run_whose_result_does_not_fit_is_told_and_the_conversation_goes_on(
    disk_and_engine: tuple[Disk, AsyncEngine],
) -> None:
    disk, engine = disk_and_engine
    memory = SQLMemory(engine, capacity=None)

    async def produce() -> str:
        await disk.fill()
        return noise(SPARE * 4)

    agent = agent_of(ScriptedModel(asks(call("produce")), then="done"), memory, tools=[produce])
    with pytest.raises(StoreError) as caught:
        await agent.run("make it", "alice", run_id="r")
    assert not isinstance(caught.value, OutcomeUnknownError)
    record = await memory.get_run("r", "alice")
    assert record is not None
    # It is interrupted, and somebody could go on with it.
    assert (record.status, record.error_type) == ("running", None)
    assert roles(await memory.get_messages("alice")) == ["user", "assistant"]

    await disk.free()
    assert await refused_by_a_provider(memory, "alice") is None
    record = await memory.get_run("r", "alice")
    assert record is not None
    assert (record.status, record.error_type) == ("failed", "RunInterruptedError")
    assert (await agent.run("and then?", "alice", run_id="next")).content == "done"
    stored = await memory.get_messages("alice")
    assert_numbered(stored)
    assert list(runs_in(stored))[::2] == ["r", "next"]


@pytest.fixture
def server_with_a_small_log() -> Iterator[tuple[SmallFolder, PrivatePostgres]]:
    """A server whose write-ahead log alone is on a small disk."""
    with ExitStack() as stack:
        disk = stack.enter_context(mounted("96m"))
        folder = Path(tempfile.mkdtemp(prefix="agno-sql-pg18-"))
        server = PrivatePostgres(18, durable=True, folder=folder, settings=SMALL_LOG)
        stack.callback(server.destroy)
        server.start()
        server.kill()
        move_owned(folder / "data" / "pg_wal", disk.folder / "log")
        server.start_again()
        yield disk, server


@pytest.mark.guarantee("G49")
async def test_a_server_that_dies_of_a_full_disk_has_lost_nothing_and_runs_go_on(
    server_with_a_small_log: tuple[SmallFolder, PrivatePostgres],
) -> None:
    """Where the log of what is committed is full, PostgreSQL can't even refuse: it goes down."""
    disk, server = server_with_a_small_log
    await asyncio.to_thread(upgrade_to_head, server.url)
    async with without_leaks(open_engine(server.url), server.url) as engine:
        memory = SQLMemory(engine, capacity=None)
        is_working, goes_on = asyncio.Event(), asyncio.Event()

        async def work() -> str:
            is_working.set()
            await goes_on.wait()
            return "worked"

        agent = agent_of(ScriptedModel(asks(call("work")), then="done"), memory, tools=[work])
        run = asyncio.create_task(agent.run("go", "bob", run_id="r"))
        await is_working.wait()
        await disk.fill()
        acknowledged, _ = await added_until_refused(memory, SPARE)
        await asyncio.to_thread(server.kill)  # what the crash has left of it
        goes_on.set()
        with pytest.raises(StoreUnavailableError):
            await memory.size("alice")
        assert not run.done()

        await disk.free()
        await asyncio.to_thread(server.start_again)
        assert (await run).content == "done"
        turn = await memory.get_messages("bob")
        assert contents(turn) == ["go", "", "worked", "done"]
        assert_answered(runs_in(turn)["r"])
        stored = await memory.get_messages("alice")
        assert stored[: len(acknowledged)] == acknowledged
        # The last ones were refused, or it was their COMMIT that found the log full.
        assert len(stored) - len(acknowledged) in (0, 2)
        assert (await memory.add(Message.user("next"), "alice")).seq == len(stored) + 1
        assert_numbered(await memory.get_messages("alice"))


def move_owned(folder: Path, to: Path) -> None:
    """Move *folder* to another disk, where it belongs to whom it did, and link to it."""
    owner = folder.stat()
    shutil.copytree(folder, to)
    for path in (to, *to.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    shutil.rmtree(folder)
    folder.symlink_to(to)
