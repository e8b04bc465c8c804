"""A server that is still connected and says nothing: every wait for it has a bound."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from agno_sql.errors import OutcomeUnknownError, StoreUnavailableError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from agno_sql.store.engine import open_engine
from tests.agent.models import ScriptedModel, agent_of, asks, call, contents
from tests.faults.checks import (
    assert_answered,
    assert_numbered,
    runs_in,
    through,
    until,
    without_leaks,
)
from tests.faults.test_cuts import COMMIT, At
from tests.support.tcp import Fate

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.support.tcp import TcpProxy

ANSWER_WITHIN_S: Final = 1.0
SETTLE_FOR_S: Final = 0.3
# SQLAlchemy gives a connection that is given up on two seconds to close nicely.
GIVEN_UP_S: Final = 2.0
SLACK_S: Final = 15.0  # of a machine that is busy otherwise
IN_TIME_S: Final = ANSWER_WITHIN_S + GIVEN_UP_S + SLACK_S


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("database", "find_together", "read_together", "write_postgresql"):
        monkeypatch.setattr(f"agno_sql.store.{module}.ANSWER_WITHIN_S", ANSWER_WITHIN_S)


@pytest.fixture
def settles_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agno_sql.settled._SETTLE_FOR_S", SETTLE_FOR_S)


@pytest.fixture
async def memory(engine: AsyncEngine) -> SQLMemory:
    """A memory that has a connection already."""
    memory = SQLMemory(engine)
    await memory.add(Message.user("first"), "alice")
    return memory


@pytest.mark.guarantee("G47")
@pytest.mark.usefixtures("short_waits", "portable")
async def test_a_statement_without_an_answer_is_unavailable_in_time(
    memory: SQLMemory, proxy: TcpProxy
) -> None:
    proxy.blackhole()
    async with asyncio.timeout(IN_TIME_S):
        with pytest.raises(StoreUnavailableError) as caught:
            await memory.add(Message.user("lost"), "alice")
    assert caught.value.retryable
    proxy.heal()
    assert (await memory.add(Message.user("second"), "alice")).seq == 2
    assert contents(await memory.get_messages("alice")) == ["first", "second"]


@pytest.mark.guarantee("G47")
@pytest.mark.usefixtures("short_waits")
async def test_what_shares_a_statement_without_an_answer_is_told_in_time(
    memory: SQLMemory, proxy: TcpProxy
) -> None:
    """The statement commits too: of a write nobody knows, of a read it is sure."""
    proxy.blackhole()
    async with asyncio.timeout(IN_TIME_S):
        add, read = await asyncio.gather(
            memory.add(Message.user("second"), "alice"),
            memory.get_messages("alice"),
            return_exceptions=True,
        )
    assert isinstance(add, OutcomeUnknownError)
    assert isinstance(read, StoreUnavailableError)
    proxy.heal()
    third = await memory.add(Message.user("third"), "alice")
    stored = await memory.get_messages("alice")
    assert_numbered(stored)
    assert stored[-1] == third


@pytest.mark.usefixtures("way")
async def test_a_connection_that_is_never_answered_is_unavailable_in_time(
    postgres_url: str, proxy: TcpProxy
) -> None:
    url = f"{through(proxy, postgres_url)}?connect_timeout={ANSWER_WITHIN_S}"
    async with without_leaks(open_engine(url), postgres_url) as engine:
        memory = SQLMemory(engine)
        proxy.blackhole()
        try:
            async with asyncio.timeout(IN_TIME_S):
                with pytest.raises(StoreUnavailableError):
                    await memory.add(Message.user("lost"), "alice")
        finally:
            proxy.heal()
        assert (await memory.add(Message.user("first"), "alice")).seq == 1


@pytest.mark.usefixtures("way")
@pytest.mark.guarantee("G47")
@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("silent", [Fate.SILENT_BEFORE, Fate.SILENT_BEFORE_ANSWER])
async def test_a_commit_without_an_answer_is_unknown_in_time_and_stored_at_most_once(
    memory: SQLMemory, proxy: TcpProxy, silent: Fate
) -> None:
    proxy.on_request = at_commit = At(COMMIT, [silent])
    async with asyncio.timeout(IN_TIME_S):
        with pytest.raises(OutcomeUnknownError):
            await memory.add(Message.user("second"), "alice")
    assert at_commit.seen == 1
    proxy.heal()
    # A COMMIT that was on its way may arrive late: what comes next waits for its transaction.
    third = await memory.add(Message.user("third"), "alice")
    stored = await memory.get_messages("alice")
    assert_numbered(stored)
    assert stored[-1] == third
    assert contents(stored) in (["first", "second", "third"], ["first", "third"])
    if silent is Fate.SILENT_BEFORE_ANSWER:
        assert len(stored) == 3, "the server had committed it"


@pytest.mark.usefixtures("way")
@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("silent", [Fate.SILENT_BEFORE, Fate.SILENT_BEFORE_ANSWER])
async def test_a_run_goes_on_after_a_silence_at_a_step_and_has_it_once(
    engine: AsyncEngine, proxy: TcpProxy, silent: Fate
) -> None:
    memory = SQLMemory(engine)
    agent = agent_of(ScriptedModel(asks(call("look")), "done"), memory, tools=[look])
    proxy.on_request = at_commit = At(COMMIT, [Fate.FORWARD, Fate.FORWARD, silent])
    run = asyncio.create_task(agent.run("look out", "alice", run_id="r"))
    await until(lambda: at_commit.seen == 3)
    # It has given the silent connection up, on which it has the statement cancelled, and wants a
    # new one.
    before = proxy.accepted
    await until(lambda: proxy.accepted >= before + 2)
    proxy.heal()

    assert (await run).content == "done"
    stored = await memory.get_messages("alice")
    assert contents(stored) == ["look out", "", "nothing to see", "done"]
    assert_numbered(stored)
    assert_answered(runs_in(stored)["r"])


async def look() -> str:
    return "nothing to see"


@pytest.mark.usefixtures("settles_soon", "way")
class TestACancelledTask:
    @pytest.mark.parametrize("silent", [Fate.SILENT_BEFORE, Fate.SILENT_BEFORE_ANSWER])
    @pytest.mark.parametrize("at", [b"INSERT INTO messages", COMMIT], ids=["insert", "commit"])
    async def test_an_add_ends_when_it_has_been_given_its_time(
        self, memory: SQLMemory, proxy: TcpProxy, at: bytes, silent: Fate
    ) -> None:
        proxy.cut()  # a new connection sends the statement's text again
        await memory.get_messages("alice")
        proxy.on_request = silence = At(at, [silent])
        adding = asyncio.create_task(memory.add(Message.user("second"), "alice"))
        await until(lambda: silence.seen == 1)
        await assert_ends_cancelled(adding, within_s=SETTLE_FOR_S + GIVEN_UP_S + SLACK_S)
        proxy.heal()
        stored = await memory.get_messages("alice")
        assert contents(stored) in (["first"], ["first", "second"])
        third = await memory.add(Message.user("third"), "alice")
        stored = await memory.get_messages("alice")
        assert_numbered(stored)
        assert stored[-1] == third

    @pytest.mark.guarantee("G47")
    async def test_a_run_ends_when_it_has_been_given_its_time(
        self, memory: SQLMemory, proxy: TcpProxy
    ) -> None:
        """It also wants to store that it was cancelled: that has its bound too."""
        agent = agent_of(ScriptedModel(asks(call("look")), then="done"), memory, tools=[look])
        proxy.on_request = at_commit = At(COMMIT, [Fate.FORWARD, Fate.SILENT_BEFORE])
        run = asyncio.create_task(agent.run("look out", "alice", run_id="r"))
        await until(lambda: at_commit.seen == 2)
        try:
            await assert_ends_cancelled(run, within_s=2 * (SETTLE_FOR_S + GIVEN_UP_S) + SLACK_S)
        finally:
            proxy.heal()
        assert_numbered(await memory.get_messages("alice"))


async def assert_ends_cancelled(task: asyncio.Task[Any], *, within_s: float) -> None:
    """Cancel *task*; require that it ends so in time."""
    task.cancel()
    await asyncio.wait([task], timeout=within_s)
    assert task.done(), f"still not over after {within_s} s"
    assert task.cancelled()
