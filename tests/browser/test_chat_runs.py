"""Answers on the chat page: while they are made, over reloads, lost connections and restarts."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect
from sqlalchemy import make_url

from agno_sql.agent.agent import Agent
from agno_sql.errors import InputRejectedError, ModelUnavailableError
from agno_sql.memory.sql import SQLMemory
from agno_sql.message import Message, ToolCall
from agno_sql.models.demo import DemoModel
from agno_sql.server import Limits
from agno_sql.testing import Reply, ScriptedOpenAI
from tests.agent.models import ScriptedModel, agent_of, asks, call, contents, roles
from tests.browser.chat import Chat, PausingModel
from tests.support.http import DEADLINE_S, server_process
from tests.support.runner import Gate, rows
from tests.support.tcp import behind_proxy, proxy_to

if TYPE_CHECKING:
    from playwright.async_api import Page, Route

    from agno_sql.agent.context import HookInput
    from tests.browser.conftest import Serve
    from tests.support.browser import Console

LOST = "ERR_CONNECTION|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|ERR_SOCKET|ERR_NETWORK"


async def at(gate: Gate) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await gate.entered.wait()


def look_up(order: int) -> str:
    return f"order {order} is on its way"


@pytest.mark.guarantee("G85")
async def test_an_answer_is_shown_while_it_is_made(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    model = PausingModel("one … two")
    chat = await Chat.entered(page, await serve(agent_of(model, memory)))
    await chat.ask("count")
    await expect(chat.answers).to_have_text("one")
    await expect(chat.button("Stop the answer")).to_be_visible()
    assert (await memory.sessions("alice"))[0].message_count == 1
    # Who listens to the page is not told each word.
    await expect(page.get_by_role("log")).not_to_contain_text("one")
    model.gate.opened.set()
    await expect(chat.answers).to_have_text("one … two")
    await expect(page.get_by_role("log")).to_contain_text("one … two")
    await chat.at_rest()
    await expect(chat.notice).to_have_count(0)
    await expect(chat.sessions).to_have_text(["count" + await time_of(chat)])
    assert (await memory.sessions("alice"))[0].message_count == 2


async def time_of(chat: Chat) -> str:
    return await chat.page.locator("#sessions time").inner_text()


@pytest.mark.guarantee("G85")
async def test_a_reload_in_the_midst_of_an_answer_follows_it_again(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    model = PausingModel(asks(call("look_up", order=7), text="One moment."), "It … comes.")
    agent = agent_of(model, memory, tools=[look_up])
    chat = await Chat.entered(page, await serve(agent))
    await chat.ask("Where is 7?")
    for _ in range(2):
        await expect(chat.everything).to_have_text(["Where is 7?", "One moment.", "It"])
        await expect(chat.tools).to_have_count(1)
        await page.reload()
    model.gate.opened.set()
    whole = ["Where is 7?", "One moment.", "It … comes."]
    await expect(chat.everything).to_have_text(whole)
    await chat.at_rest()
    await expect(chat.notice).to_have_count(0)
    await page.reload()
    await expect(chat.everything).to_have_text(whole)
    await expect(chat.tools).to_have_count(1)
    assert len(model.shown) == 2
    (session,) = await memory.sessions("alice")
    stored = await memory.get_messages("alice", session_id=session.session_id)
    assert roles(stored) == ["user", "assistant", "tool", "assistant"]


@pytest.mark.guarantee("G85")
async def test_a_reload_before_anything_is_stored_asks_once(
    serve: Serve, page: Page, memory: SQLMemory, console: Console
) -> None:
    console.expect("404")  # the session does not exist yet when the page looks for it
    gate = Gate()
    agent = agent_of(ScriptedModel("hi", "never"), memory, pre_hooks=[gate.think])
    chat = await Chat.entered(page, await serve(agent))
    await chat.ask("hello")
    await at(gate)
    await page.reload()
    await expect(chat.everything).to_have_text(["hello"])
    gate.opened.set()
    await expect(chat.everything).to_have_text(["hello", "hi"])
    await chat.at_rest()
    (session,) = await memory.sessions("alice")
    assert session.message_count == 2


@pytest.mark.guarantee("G85")
async def test_another_conversation_may_be_looked_at_meanwhile(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    model = PausingModel("first", "one … two")
    chat = await Chat.entered(page, await serve(agent_of(model, memory)))
    await chat.ask("hello")
    await expect(chat.answers).to_have_text("first")
    await chat.button("New conversation").click()
    await expect(chat.everything).to_have_count(0)
    await chat.ask("count")
    await expect(chat.answers).to_have_text("one")
    await chat.sessions.filter(has_text="hello").click()
    await expect(chat.everything).to_have_text(["hello", "first"])
    await chat.sessions.filter(has_text="count").click()
    await expect(chat.everything).to_have_text(["count", "one"])
    model.gate.opened.set()
    await expect(chat.everything).to_have_text(["count", "one … two"])
    await page.go_back()
    await expect(chat.everything).to_have_text(["hello", "first"])


@pytest.mark.guarantee("G86")
async def test_a_lost_connection_loses_and_doubles_nothing(
    serve: Serve, page: Page, memory: SQLMemory, console: Console
) -> None:
    console.expect(LOST)
    model = PausingModel("one … two")
    port = make_url(await serve(agent_of(model, memory))).port
    assert port is not None
    async with proxy_to("127.0.0.1", port) as proxy:
        chat = await Chat.entered(page, f"http://127.0.0.1:{proxy.port}/")
        await chat.ask("count")
        await expect(chat.answers).to_have_text("one")
        proxy.refuse()
        proxy.cut()
        await expect(chat.notice).to_contain_text("Connection lost")
        await expect(chat.everything).to_have_text(["count", "one"])
        await proxy.accept()
        model.gate.opened.set()
        await expect(chat.everything).to_have_text(["count", "one … two"])
        await chat.at_rest()
        await expect(chat.notice).to_have_count(0)
        await page.close()
    assert len(model.shown) == 1
    assert (await memory.sessions("alice"))[0].message_count == 2


@pytest.mark.parametrize("what", ["sessions", "messages"])
async def test_what_is_asked_before_the_page_is_ready_is_asked_then(
    serve: Serve, page: Page, memory: SQLMemory, what: str
) -> None:
    await memory.add(Message.user("before"), "alice", session_id="old")
    chat = await Chat.entered(page, await serve(agent_of(ScriptedModel("hi"), memory)))
    await expect(chat.everything).to_have_text(["before"])
    slow = Gate()

    async def hold(route: Route) -> None:
        await slow.wait()
        await route.continue_()

    await page.route(f"**/{what}?*", hold)
    await page.reload()
    await at(slow)
    await chat.ask("hello")
    await expect(chat.everything).to_have_count(0)
    slow.opened.set()
    await expect(chat.everything).to_have_text(["before", "hello", "hi"])
    await chat.at_rest()
    await expect(chat.notice).to_have_count(0)
    stored = await memory.get_messages("alice", session_id="old")
    assert contents(stored) == ["before", "hello", "hi"]
    await page.unroute_all(behavior="wait")


async def test_a_connection_that_has_gone_silent_is_given_up(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    model = PausingModel("one … two")
    await page.clock.install()
    chat = await Chat.entered(page, await serve(agent_of(model, memory)))
    await chat.ask("count")
    await expect(chat.answers).to_have_text("one")
    await page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=45))
    await expect(chat.notice).to_contain_text("Connection lost")
    await chat.button("Try now").click()
    await page.clock.resume()
    model.gate.opened.set()
    await expect(chat.everything).to_have_text(["count", "one … two"])
    await chat.at_rest()
    await expect(chat.notice).to_have_count(0)
    assert (await memory.sessions("alice"))[0].message_count == 2


@pytest.mark.guarantee("G86")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_restart_of_the_server_loses_and_doubles_nothing(
    page: Page, sqlite_url: str, console: Console, how: signal.Signals
) -> None:
    console.expect("ERR_CONNECTION_REFUSED")
    console.expect(f"503|{LOST}")
    hold = threading.Event()
    replies = [
        Reply(text="One moment.", tool_calls=(ToolCall("c1", "look_up", '{"order": 7}'),)),
        Reply(text="half an answer", hold=hold, hold_after_words=2),
        Reply(text="It comes."),
    ]
    with ScriptedOpenAI(replies) as model:
        env = {"AGNO_SQL_DATABASE_URL": sqlite_url, "OPENAI_BASE_URL": model.base_url}
        shop = ("tests.server.agents:shop", "--grace", "0s")
        with server_process(*shop, **env) as server:
            chat = await Chat.entered(page, server.url)
            await chat.ask("Where is 7?")
            await expect(chat.everything).to_have_text(["Where is 7?", "One moment.", "half an"])
            server.signal(how)
            await asyncio.to_thread(server.ended)
            await expect(chat.notice).to_contain_text("nothing is lost")
            await expect(chat.tools).to_have_count(1)
        port = str(make_url(server.url).port)
        with server_process(*shop, "--port", port, **env):
            whole = ["Where is 7?", "One moment.", "It comes."]
            await expect(chat.everything).to_have_text(whole)
            await chat.at_rest()
            await expect(chat.notice).to_have_count(0)
            await expect(chat.tools).to_have_count(1)
            await page.reload()
            await expect(chat.everything).to_have_text(whole)
            await page.close()
    stored = sorted(rows(sqlite_url, "messages"), key=lambda row: int(row["seq"]))
    assert [row["role"] for row in stored] == ["user", "assistant", "tool", "assistant"]


async def test_escape_stops_the_answer(serve: Serve, page: Page, memory: SQLMemory) -> None:
    model = PausingModel("one … two", "again")
    chat = await Chat.entered(page, await serve(agent_of(model, memory)))
    await chat.ask("count")
    await expect(chat.answers).to_have_text("one")
    await page.keyboard.press("Escape")
    await expect(chat.notice).to_contain_text("Stopped")
    await expect(chat.message).to_be_focused()
    assert model.gate.was_cancelled
    await page.reload()
    await expect(chat.everything).to_have_text(["count"])
    await expect(chat.notice).to_contain_text("Stopped")
    await chat.button("Ask again").click()
    await expect(chat.everything).to_have_text(["count", "count", "again"])
    await chat.at_rest()
    (session,) = await memory.sessions("alice")
    stored = await memory.get_messages("alice", session_id=session.session_id)
    assert contents(stored) == ["count", "count", "again"]


async def test_a_failure_is_told_in_words_and_can_be_tried_again(
    serve: Serve, page: Page, memory: SQLMemory
) -> None:
    model = ScriptedModel(ModelUnavailableError("http://secret"), "here I am")
    chat = await Chat.entered(page, await serve(agent_of(model, memory)))
    await chat.ask("hello")
    await expect(chat.notice).to_contain_text("The model can't be reached right now.")
    await chat.button("Try again").click()
    await expect(chat.answers).to_have_text("here I am")


@pytest.mark.guarantee("G86")
async def test_what_the_database_could_not_take_is_stored_once_when_it_is_tried_again(
    serve: Serve, page: Page, postgres_url: str, console: Console
) -> None:
    console.expect("503")
    async with (
        behind_proxy(postgres_url) as (proxy, through),
        SQLMemory.open(through) as memory,
    ):
        agent = Agent(name="a", model=DemoModel(), memory=memory)
        chat = await Chat.entered(page, await serve(agent))
        await expect(page.get_by_text("Hello, alice")).to_be_visible()
        proxy.refuse()
        proxy.cut()
        await chat.ask("My name is Alice")
        await expect(chat.notice).to_contain_text("The database can't be reached")
        await proxy.accept()
        await chat.button("Try again").click()
        await expect(chat.answers).to_have_text("Nice to meet you, Alice!")
        await chat.at_rest()
        await expect(chat.notice).to_have_count(0)
        await page.close()
    assert [row["role"] for row in rows(postgres_url, "messages")] == ["user", "assistant"]
    assert len(rows(postgres_url, "runs")) == 1


async def test_what_is_refused_goes_back_to_its_writer(
    serve: Serve, page: Page, memory: SQLMemory, console: Console
) -> None:
    console.expect("404")  # no run of it is found

    def judge(given: HookInput) -> None:
        if given.input == "rude":
            raise InputRejectedError("be kind")

    agent = agent_of(ScriptedModel("hi"), memory, pre_hooks=[judge])
    chat = await Chat.entered(page, await serve(agent))
    await chat.ask("rude")
    await expect(chat.notice).to_contain_text("Not sent. The assistant does not take this message.")
    await expect(chat.message).to_have_value("rude")
    await chat.ask("kind")
    await expect(chat.answers).to_have_text("hi")
    await chat.at_rest()
    assert (await memory.sessions("alice"))[0].message_count == 2


@pytest.mark.parametrize("letter", ["x", "\n", "é", "\x01"])
async def test_what_is_too_long_for_the_server_is_not_sent(
    serve: Serve, page: Page, memory: SQLMemory, letter: str
) -> None:
    """Not by one byte, whatever the letters take in JSON."""
    text = "a" + 50 * letter
    some_id = 32 * "0"
    body = {"session_id": some_id, "run_id": some_id, "message": text, "stream": True}
    sent = json.dumps(body | {"user_id": "alice"}, ensure_ascii=False, separators=(",", ":"))
    agent = agent_of(ScriptedModel("hi"), memory)
    limits = Limits(body_bytes=len(sent.encode()))
    chat = await Chat.entered(page, await serve(agent, limits=limits))
    await chat.ask("a" + text)
    await expect(page.locator("#too-long")).to_contain_text("too long")
    await expect(chat.message).to_have_value("a" + text)
    await chat.ask(text)
    await expect(chat.answers).to_have_text("hi")
    await expect(page.locator("#too-long")).to_be_hidden()
    await chat.at_rest()
    assert (await memory.sessions("alice"))[0].message_count == 2
