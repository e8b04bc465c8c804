"""The window: what of any history a model is shown, in a form its provider accepts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agno_sql.memory.window import MISSING_RESULT, window
from agno_sql.message import Message, ToolCall
from agno_sql.testing.wire_rules import violation
from tests.agent.models import as_wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SYSTEM, USER, ANSWER = Message.system("s"), Message.user("u"), Message.assistant("a")


def asking(*call_ids: str) -> Message:
    return Message.assistant("", [ToolCall(call_id, "look_up", "{}") for call_id in call_ids])


def result(call_id: str, content: str = "result") -> Message:
    return Message.tool(content, tool_call_id=call_id, name="look_up")


def missing(call_id: str) -> Message:
    return result(call_id, MISSING_RESULT)


def numbered(messages: Iterable[Message]) -> list[Message]:
    """Return *messages* with a seq, so that each can be told from all others."""
    return [replace(message, seq=seq) for seq, message in enumerate(messages, start=1)]


def as_stored(shown: Message, history: Sequence[Message]) -> Message:
    """Return *shown* with its ids as they are stored: repeated ones were made unique."""
    stored = history[(shown.seq or 0) - 1]
    unmarked = [replace(call, id=call.id.rstrip("_")) for call in shown.tool_calls]
    assert shown.tool_call_id is None or shown.tool_call_id.rstrip("_") == stored.tool_call_id
    return replace(shown, tool_calls=tuple(unmarked), tool_call_id=stored.tool_call_id)


def brief(messages: Sequence[Message]) -> list[tuple[str, str | None, str]]:
    return [(m.role, m.tool_call_id, m.content) for m in messages]


X1, X2 = result("x", "first"), result("x", "second")

REPAIRS = [
    pytest.param([], [], id="nothing"),
    pytest.param([SYSTEM, USER, ANSWER], [SYSTEM, USER, ANSWER], id="no tools"),
    pytest.param(
        [USER, asking("x"), X1, ANSWER], [USER, asking("x"), X1, ANSWER], id="a whole exchange"
    ),
    pytest.param(
        [asking("x", "y"), result("y"), result("x")],
        [asking("x", "y"), result("x"), result("y")],
        id="results in call order",
    ),
    pytest.param(
        [asking("x", "y"), USER, result("y"), SYSTEM, ANSWER, result("x"), USER],
        [asking("x", "y"), result("x"), result("y"), USER, SYSTEM, ANSWER, USER],
        id="what came in between moves behind",
    ),
    pytest.param([USER, asking("x")], [USER, asking("x"), missing("x")], id="a missing result"),
    pytest.param(
        [asking("x", "y", "z"), result("y"), USER],
        [asking("x", "y", "z"), missing("x"), result("y"), missing("z"), USER],
        id="one of three results",
    ),
    pytest.param([result("x"), USER], [USER], id="a result before any call"),
    pytest.param(
        [result("x"), asking("x")], [asking("x"), missing("x")], id="a result before its call"
    ),
    pytest.param(
        [USER, asking("x"), result("y"), X1],
        [USER, asking("x"), X1],
        id="a result that nobody called for",
    ),
    pytest.param([asking("x"), X1, X2, USER], [asking("x"), X1, USER], id="a second result"),
    pytest.param(
        [asking("x"), X1, asking("x"), X2],
        [asking("x"), X1, asking("x"), X2],
        id="a repeated id",
    ),
    pytest.param(
        [asking("x"), asking("x"), X2],
        [asking("x"), missing("x"), asking("x"), X2],
        id="a result belongs to the latest call of its id",
    ),
    pytest.param(
        [asking("x"), asking("y"), result("y"), result("x")],
        [asking("x"), result("x"), asking("y"), result("y")],
        id="two open exchanges",
    ),
    pytest.param(
        [asking("x", "x"), X1, X2],
        [asking("x", "x_"), X1, result("x_", "second")],
        id="a repeated id in one message becomes another",
    ),
    pytest.param(
        [asking("x", "x_", "x"), result("x_"), X1],
        [asking("x", "x_", "x__"), X1, result("x_"), missing("x__")],
        id="one that no call has yet",
    ),
]


@pytest.mark.parametrize("history, shown", REPAIRS)
def test_a_history_is_repaired(history: list[Message], shown: list[Message]) -> None:
    assert window(history) == shown


LIMITED = [
    pytest.param([USER, ANSWER, USER], 1, [USER], id="the newest"),
    pytest.param([USER, ANSWER], 2, [USER, ANSWER], id="all of them"),
    pytest.param([USER, ANSWER], 99, [USER, ANSWER], id="fewer than allowed"),
    pytest.param([SYSTEM, USER, ANSWER], 1, [SYSTEM, ANSWER], id="system messages stay"),
    pytest.param(
        [USER, SYSTEM, ANSWER, SYSTEM], 1, [SYSTEM, ANSWER, SYSTEM], id="and keep their places"
    ),
    pytest.param([SYSTEM, USER], 0, [SYSTEM], id="none"),
    pytest.param([asking("x", "y"), X1, result("y"), USER], 4, None, id="a whole exchange"),
    pytest.param([asking("x", "y"), X1, result("y"), USER], 3, [USER], id="cut behind the call"),
    pytest.param([asking("x", "y"), X1, result("y"), USER], 2, [USER], id="cut between results"),
    pytest.param([asking("x"), X1], 1, [], id="nothing but half an exchange"),
    pytest.param(
        [asking("x"), X1, USER, asking("x"), X2], 4, [USER, asking("x"), X2], id="repeated id"
    ),
]


@pytest.mark.parametrize("history, limit, shown", LIMITED)
def test_a_limit_takes_the_newest_and_never_half_an_exchange(
    history: list[Message], limit: int, shown: list[Message] | None
) -> None:
    assert window(history, limit) == (history if shown is None else shown)


# Few ids, so that they repeat, answer each other out of order, or nobody at all.
IDS = st.sampled_from(["x", "y", "z"])
PLAIN = st.sampled_from([SYSTEM, USER, ANSWER])
CALLS = st.lists(IDS, min_size=1, max_size=3, unique=True).map(lambda ids: asking(*ids))
CALLS_THAT_REPEAT_IDS = st.lists(IDS, min_size=1, max_size=3).map(lambda ids: asking(*ids))
RESULTS = IDS.map(result)
ANY_HISTORIES = st.lists(PLAIN | CALLS_THAT_REPEAT_IDS | RESULTS, max_size=20).map(numbered)
LIMITS = st.none() | st.integers(1, 12)


@st.composite
def written_by_runs(draw: st.DrawFn) -> list[Message]:
    """Return a history as runs write it: each exchange whole, ids repeated over exchanges."""
    history: list[Message] = []
    for step in draw(st.lists(PLAIN | CALLS, max_size=12)):
        history += [step, *(result(call.id) for call in step.tool_calls)]
    return numbered(history)


@pytest.mark.guarantee("G22")
@given(ANY_HISTORIES, LIMITS)
def test_whatever_is_stored_a_provider_accepts_what_is_shown(
    history: list[Message], limit: int | None
) -> None:
    assert violation(as_wire([*window(history, limit), Message.user("next")])) is None


@given(ANY_HISTORIES, LIMITS)
def test_every_call_is_followed_by_its_results_in_call_order_and_nothing_else_is_a_result(
    history: list[Message], limit: int | None
) -> None:
    shown = window(history, limit)
    at = 0
    while at < len(shown):
        assert shown[at].role != "tool"
        calls = shown[at].tool_calls
        results = shown[at + 1 : at + 1 + len(calls)]
        assert [m.tool_call_id for m in results] == [call.id for call in calls]
        at += 1 + len(calls)


@given(ANY_HISTORIES)
def test_no_message_but_orphaned_results_is_lost_doubled_or_reordered(
    history: list[Message],
) -> None:
    shown = window(history)
    assert [as_stored(m, history) for m in shown if m.role != "tool"] == [
        m for m in history if m.role != "tool"
    ]


@given(ANY_HISTORIES, LIMITS)
def test_a_result_is_shown_once_at_most_behind_a_call_that_came_before_it(
    history: list[Message], limit: int | None
) -> None:
    asked_at: int | None = None
    times = Counter(m.seq for m in window(history, limit) if m.seq is not None)
    assert set(times.values()) <= {1}
    for message in window(history, limit):
        if message.role != "tool":
            asked_at = message.seq
        elif message.seq is None:
            assert (message.content, message.name) == (MISSING_RESULT, "look_up")
        else:
            assert as_stored(message, history) == history[message.seq - 1]
            assert asked_at is not None
            assert asked_at < message.seq


@given(ANY_HISTORIES)
def test_a_call_lacks_its_result_only_if_none_is_left_for_it(history: list[Message]) -> None:
    """Each result behind an open call of its id finds one: none is dropped for nothing."""
    shown = {m.seq for m in window(history)}
    open_calls: Counter[str] = Counter()
    for message in history:
        open_calls.update(call.id for call in message.tool_calls)
        if message.role == "tool" and message.tool_call_id is not None:
            is_awaited = open_calls[message.tool_call_id] > 0
            assert (message.seq in shown) == is_awaited
            open_calls[message.tool_call_id] -= is_awaited


@given(ANY_HISTORIES, LIMITS)
def test_a_window_of_a_window_is_the_same_window(history: list[Message], limit: int | None) -> None:
    once = window(history, limit)
    assert brief(window(once)) == brief(once)


@given(written_by_runs())
def test_what_runs_wrote_is_shown_as_it_is(history: list[Message]) -> None:
    assert window(history) == history


@given(written_by_runs(), st.integers(1, 12))
def test_a_limit_cuts_what_runs_wrote_only_between_exchanges(
    history: list[Message], limit: int
) -> None:
    shown = window(history, limit)
    assert MISSING_RESULT not in [m.content for m in shown]
    in_order = [m.seq for m in shown]
    assert in_order == sorted(in_order, key=lambda seq: seq or 0)
    others = [m for m in shown if m.role != "system"]
    stored = [m for m in history if m.role != "system"]
    assert others == stored[len(stored) - len(others) :], "the newest, without a gap"
    assert len(others) <= limit
    if len(others) < min(limit, len(stored)):
        next_older = stored[len(stored) - len(others) - 1]
        assert next_older.role == "tool", "only an exchange that does not fit is left out"


@given(ANY_HISTORIES, st.integers(1, 12))
def test_system_messages_are_all_shown_and_of_the_others_at_most_the_limit(
    history: list[Message], limit: int
) -> None:
    shown = window(history, limit)
    systems = [m for m in history if m.role == "system"]
    others = [m for m in history if m.role != "system"]
    newest = others[max(0, len(others) - limit) :]
    assert [m for m in shown if m.role == "system"] == systems
    assert [as_stored(m, history) for m in shown if m.role in {"user", "assistant"}] == [
        m for m in newest if m.role in {"user", "assistant"}
    ]
    assert {m.seq for m in shown if m.role == "tool"} <= {m.seq for m in newest} | {None}


@given(ANY_HISTORIES, st.integers(1, 12))
def test_a_limit_shows_the_same_of_a_history_that_is_cut_as_of_all_of_it(
    history: list[Message], limit: int
) -> None:
    """What a memory may leave out when it reads a window makes no difference."""
    others = [m for m in history if m.role != "system"]
    newest = {m.seq for m in others[max(0, len(others) - limit) :]}
    read = [m for m in history if m.role == "system" or m.seq in newest]
    assert window(read, limit) == window(history, limit)


@given(ANY_HISTORIES, LIMITS)
def test_the_history_given_is_left_alone(history: list[Message], limit: int | None) -> None:
    before = list(history)
    shown = window(tuple(history), limit)
    assert window(history, limit) == shown
    assert history == before


@given(ANY_HISTORIES)
def test_the_repair_is_not_vacuous(history: list[Message]) -> None:
    """Histories as the table may hold them are refused by providers unless they are repaired."""
    assume(violation(as_wire([*history, USER])) is not None)
    assert window(history) != history
