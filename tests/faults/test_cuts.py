"""Connections cut before, at and after COMMIT, at exactly that moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import event

from agno_sql.errors import OutcomeUnknownError, StoreUnavailableError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message
from tests.agent.models import ScriptedModel, agent_of, asks, call, contents
from tests.faults.checks import assert_answered, assert_numbered, runs_in, until
from tests.support.tcp import Fate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.support.tcp import TcpProxy

# What makes a server commit: a simple query of PostgreSQL's protocol (its type, its length, its
# text), or the parameters of the one statement that stores a batch (the kind of each write in it).
COMMIT: Final = (
    b"Q\x00\x00\x00\x0cCOMMIT;\x00",
    b"\x00\x00\x00\x06append",
    b"\x00\x00\x00\x05begin",
    b"\x00\x00\x00\x04step",
    b"\x00\x00\x00\x08complete",
)
COMMITS_OF_A_RUN: Final = 4  # with one tool call: the input, the call, its result, the answer

CUTS = pytest.mark.parametrize(
    "cut",
    [
        pytest.param(Fate.CUT_BEFORE, id="before_the_server_got_it"),
        pytest.param(Fate.CUT_BEFORE_ANSWER, id="before_the_client_got_the_answer"),
        pytest.param(Fate.CUT_AFTER_ANSWER, id="after_the_client_got_the_answer"),
    ],
)


class At:
    """Decides the fate of each request that holds *what*, one after another, then forwards."""

    def __init__(self, what: bytes | tuple[bytes, ...], fates: Iterable[Fate]) -> None:
        self._what = (what,) if isinstance(what, bytes) else what
        self._fates = iter(fates)
        self.seen = 0

    def __call__(self, request: bytes) -> Fate:
        if not any(what in request for what in self._what):
            return Fate.FORWARD
        self.seen += 1
        return next(self._fates, Fate.FORWARD)


class Tool:
    """A tool that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def look(self, text: str) -> str:
        self.calls += 1
        return f"saw {text}"


def model_with_one_call() -> ScriptedModel:
    return ScriptedModel(asks(call("look", text="out")), "done", then="and more")


@pytest.mark.usefixtures("way")
@pytest.mark.guarantee("G46")
@CUTS
async def test_an_add_whose_commit_is_cut_is_unknown_and_never_stored_twice(
    engine: AsyncEngine, proxy: TcpProxy, cut: Fate
) -> None:
    memory = SQLMemory(engine)
    await memory.add(Message.user("first"), "alice")
    proxy.on_request = at_commit = At(COMMIT, [cut])
    if cut is Fate.CUT_AFTER_ANSWER:
        assert (await memory.add(Message.user("second"), "alice")).seq == 2
    else:
        with pytest.raises(OutcomeUnknownError) as caught:
            await memory.add(Message.user("second"), "alice")
        assert not caught.value.retryable
    assert at_commit.seen == 1

    expected = ["first"] if cut is Fate.CUT_BEFORE else ["first", "second"]
    assert contents(await memory.get_messages("alice")) == expected
    assert (await memory.add(Message.user("next"), "alice")).seq == len(expected) + 1
    stored = await memory.get_messages("alice")
    assert contents(stored) == [*expected, "next"]
    assert_numbered(stored)


@pytest.mark.usefixtures("portable")
@pytest.mark.parametrize("cut", [Fate.CUT_BEFORE, Fate.CUT_BEFORE_ANSWER])
@pytest.mark.parametrize("statement", [b"INSERT INTO conversations", b"INSERT INTO messages"])
async def test_an_add_that_is_cut_before_its_commit_is_made_again_without_an_error(
    engine: AsyncEngine, proxy: TcpProxy, cut: Fate, statement: bytes
) -> None:
    memory = SQLMemory(engine)
    proxy.on_request = at_statement = At(statement, [cut, cut])
    assert (await memory.add(Message.user("hello"), "alice")).seq == 1
    assert at_statement.seen == 3
    stored = await memory.get_messages("alice")
    assert contents(stored) == ["hello"]
    assert_numbered(stored)


@pytest.mark.usefixtures("way")
async def test_a_read_that_is_cut_is_made_again_without_an_error(
    engine: AsyncEngine, proxy: TcpProxy
) -> None:
    memory = SQLMemory(engine)
    await memory.add(Message.user("hello"), "alice")
    proxy.on_request = at_query = At(b"FROM messages", [Fate.CUT_BEFORE_ANSWER, Fate.CUT_BEFORE])
    assert contents(await memory.get_messages("alice")) == ["hello"]
    assert at_query.seen == 3


@pytest.mark.usefixtures("way")
@pytest.mark.guarantee("G46")
@CUTS
async def test_a_run_completes_with_each_step_once_whichever_commit_is_cut(
    engine: AsyncEngine, proxy: TcpProxy, cut: Fate
) -> None:
    memory = SQLMemory(engine)
    for commit in range(COMMITS_OF_A_RUN):
        tool, model, user = Tool(), model_with_one_call(), f"user-{commit}"
        agent = agent_of(model, memory, tools=[tool.look])
        await known(memory, user)
        proxy.on_request = at_commit = At(COMMIT, [Fate.FORWARD] * commit + [cut])

        answer = await agent.run("look out", user, run_id="r")

        repeated = 0 if cut is Fate.CUT_AFTER_ANSWER else 1
        assert at_commit.seen == COMMITS_OF_A_RUN + repeated
        await assert_ran_once(memory, user, contents(answer.messages))
        assert (await agent.run("look out", user, run_id="r")).content == "done"
        assert (len(model.shown), tool.calls) == (2, 1)
        assert (await agent.run("more", user)).content == "and more"


@pytest.mark.usefixtures("way")
@CUTS
async def test_a_run_completes_with_each_step_once_if_each_commit_is_cut_several_times(
    engine: AsyncEngine, proxy: TcpProxy, cut: Fate
) -> None:
    memory, tool, model = SQLMemory(engine), Tool(), model_with_one_call()
    agent = agent_of(model, memory, tools=[tool.look])
    await known(memory, "alice")
    each = [cut, cut, cut, Fate.FORWARD]
    proxy.on_request = at_commit = At(COMMIT, each * COMMITS_OF_A_RUN)

    answer = await agent.run("look out", "alice", run_id="r")

    times = 1 if cut is Fate.CUT_AFTER_ANSWER else len(each)
    assert at_commit.seen == COMMITS_OF_A_RUN * times
    await assert_ran_once(memory, "alice", contents(answer.messages))
    assert (len(model.shown), tool.calls) == (2, 1)


async def known(memory: SQLMemory, user: str) -> None:
    """Let *user* have a conversation: in a new one a run is begun by two requests."""
    await memory.add(Message.user("before"), user)


async def assert_ran_once(memory: SQLMemory, user: str, told: list[str]) -> None:
    """Require that *user* has the run "r" whole and once, as it was *told*, and nothing else."""
    kept = await memory.get_messages(user)
    assert_numbered(kept)
    stored = [message for message in kept if message.content != "before"]
    assert contents(stored) == told == ["look out", "", "saw out", "done"]
    assert list(runs_in(stored)) == ["r"]
    assert_answered(stored)
    record = await memory.get_run("r", user)
    assert record is not None
    assert (record.status, record.attempt) == ("completed", 1)


@pytest.mark.usefixtures("way")
@pytest.mark.guarantee("G46")
@pytest.mark.parametrize("cut", [Fate.CUT_BEFORE, Fate.CUT_BEFORE_ANSWER])
async def test_whatever_request_is_cut_an_add_is_stored_as_it_was_told(
    engine: AsyncEngine, proxy: TcpProxy, cut: Fate
) -> None:
    """Those too by which a connection is made, which each time is a new one."""
    memory = SQLMemory(engine)
    stored: list[Message] = []
    is_cut, request = True, 0
    while is_cut:
        await engine.dispose()
        proxy.on_request = any_request = At(b"", [Fate.FORWARD] * request + [cut])
        try:
            stored.append(await memory.add(Message.user(f"{request}"), "alice"))
        except StoreUnavailableError:
            pass
        except OutcomeUnknownError:
            stored += (await memory.get_messages("alice"))[len(stored) :]
        is_cut, request = any_request.seen > request, request + 1
        assert await memory.get_messages("alice") == stored
    assert_numbered(stored)
    assert request > 4, "a connection and its statements are more requests than that"
    # The others were cut while connecting, which is told at once, or unknown and not stored.
    assert len(stored) >= request // 3


@pytest.mark.usefixtures("way")
@pytest.mark.guarantee("G46")
@pytest.mark.parametrize("cut", [Fate.CUT_BEFORE, Fate.CUT_BEFORE_ANSWER])
async def test_whatever_request_is_cut_a_run_is_whole_or_not_there(
    engine: AsyncEngine, proxy: TcpProxy, cut: Fate
) -> None:
    memory = SQLMemory(engine)
    is_cut, request = True, 0
    while is_cut:
        tool, model, user = Tool(), model_with_one_call(), f"user-{request}"
        agent = agent_of(model, memory, tools=[tool.look])
        proxy.on_request = any_request = At(b"", [Fate.FORWARD] * request + [cut])
        try:
            answer = await agent.run("look out", user, run_id="r")
        except StoreUnavailableError:
            assert not model.shown
            assert await memory.get_messages(user) == []
        else:
            await assert_ran_once(memory, user, contents(answer.messages))
            assert (len(model.shown), tool.calls) == (2, 1)
        is_cut, request = any_request.seen > request, request + 1
    assert request > 10, "a run is more requests than that"


@pytest.mark.usefixtures("way")
async def test_an_answer_that_was_stored_is_returned_though_another_run_came_next(
    engine: AsyncEngine, proxy: TcpProxy, postgres_url: str
) -> None:
    """The server committed the answer, and before the run could ask, others were at work there."""
    memory = SQLMemory(engine)
    agent = agent_of(ScriptedModel("done"), memory)
    await known(memory, "alice")
    at_commit = At(COMMIT, [Fate.FORWARD, Fate.CUT_BEFORE_ANSWER])

    def cut_the_answer_and_stay_away(request: bytes) -> Fate:
        fate = at_commit(request)
        if fate is not Fate.FORWARD:
            proxy.refuse()
        return fate

    proxy.on_request = cut_the_answer_and_stay_away
    first = asyncio.create_task(agent.run("one", "alice", run_id="first"))
    async with SQLMemory.open(postgres_url) as elsewhere:
        await until(lambda: at_commit.seen == 2)
        # Waits for the first run's lease to be given back.
        await agent_of(ScriptedModel("then"), elsewhere).run("two", "alice", run_id="second")
    await proxy.accept()

    assert (await first).content == "done"
    stored = await SQLMemory(engine).get_messages("alice")
    assert contents(stored) == ["before", "one", "done", "two", "then"]
    assert list(runs_in(stored)) == ["first", "second"]


@pytest.mark.usefixtures("way")
async def test_a_run_that_has_begun_goes_on_though_the_server_is_away_at_that_moment(
    engine: AsyncEngine, proxy: TcpProxy
) -> None:
    """Its input is stored and nobody else may answer it: that is no time to give up."""
    memory = SQLMemory(engine)
    agent = agent_of(ScriptedModel("done"), memory)
    await known(memory, "alice")
    at_commit = At(COMMIT, [Fate.CUT_AFTER_ANSWER])
    attempts = 0

    @event.listens_for(engine.sync_engine, "do_connect")
    def count(*_: object) -> None:
        nonlocal attempts
        attempts += 1

    def stay_away(request: bytes) -> Fate:
        fate = at_commit(request)
        if fate is not Fate.FORWARD:
            proxy.refuse()
        return fate

    proxy.on_request = stay_away
    run = asyncio.create_task(agent.run("hi", "alice"))
    await until(lambda: at_commit.seen == 1)
    before = attempts
    # Refused once at least: by then it is over, or tries again.
    await until(lambda: attempts > before + 1 or run.done())
    await proxy.accept()
    assert (await run).content == "done"
    assert contents(await memory.get_messages("alice")) == ["before", "hi", "done"]


@pytest.mark.usefixtures("way")
async def test_a_server_that_refuses_connections_is_told_at_once_and_used_again(
    engine: AsyncEngine, proxy: TcpProxy
) -> None:
    memory = SQLMemory(engine)
    agent = agent_of(ScriptedModel(then="done"), memory)
    await memory.add(Message.user("hello"), "alice")
    proxy.refuse()
    proxy.cut()
    async with asyncio.timeout(10):  # far from the 30 s that a busy database is waited for
        with pytest.raises(StoreUnavailableError):
            await memory.get_messages("alice")
        with pytest.raises(StoreUnavailableError):
            await memory.add(Message.user("lost"), "alice")
        with pytest.raises(StoreUnavailableError):
            await agent.run("lost", "alice")
    await proxy.accept()
    assert (await agent.run("hi", "alice")).content == "done"
    assert contents(await memory.get_messages("alice")) == ["hello", "hi", "done"]


async def test_a_slow_network_changes_nothing(engine: AsyncEngine, proxy: TcpProxy) -> None:
    proxy.delay_s = 0.002
    memory, tool, model = SQLMemory(engine), Tool(), model_with_one_call()
    answer = await agent_of(model, memory, tools=[tool.look]).run("look out", "alice", run_id="r")
    await assert_ran_once(memory, "alice", contents(answer.messages))
    assert (len(model.shown), tool.calls) == (2, 1)
