from __future__ import annotations

import pytest

from agno_sql import Message, ModelReply
from agno_sql.models.demo import DemoModel, answer


@pytest.mark.parametrize(
    "told, name",
    [
        ("My name is Alice.", "Alice"),
        ("my name is bob and I like tea", "bob"),
        ("hello, my name's Zoë!", "Zoë"),
        ("I am called Anna-Lena O\u2019Brien, hi", "Anna-Lena O\u2019Brien"),
        ("I\u2019m called Łukasz 😀", "Łukasz"),
        ('Please call me "Ada Lovelace" please', "Ada Lovelace"),
        ("my name is 李雷。", "李雷"),
        ("My name is प्रिया शर्मा", "प्रिया"),
        ("my name is Bob\nAnd more", "Bob"),
        ("My name is Bob and call me Rob", "Rob"),
    ],
)
def test_a_name_is_found_as_it_was_told(told: str, name: str) -> None:
    assert answer([told]) == f"Nice to meet you, {name}!"
    assert answer([told, "What's my name?"]) == f"Your name is {name}."


@pytest.mark.parametrize(
    "told", ["hello", "My name is not Bob", "call me later", "my name is", "Your name is Bob"]
)
def test_no_name_is_invented(told: str) -> None:
    assert answer([told, "What's my name?"]) == "You have not told me your name."


@pytest.mark.parametrize(
    "question",
    [
        "whats my name",
        "WHAT IS MY NAME?!",
        "What\u2019s my name",
        "Who am I?",
        "Do you know my name?",
    ],
)
def test_the_question_for_the_name_may_be_put_in_many_ways(question: str) -> None:
    assert answer(["My name is Eve.", question]) == "Your name is Eve."


async def test_the_latest_name_wins_and_only_users_can_tell_it() -> None:
    messages = [
        Message.system("My name is System."),
        Message.user("My name is Ann."),
        Message.assistant("My name is Hal."),
        Message.user("Call me Annie!"),
        Message.tool("my name is Tool", tool_call_id="1"),
        Message.user("who am I"),
    ]

    assert await DemoModel().reply(messages, []) == ModelReply("Your name is Annie.")


def test_it_greets_by_name() -> None:
    assert answer(["Hello there"]) == "Hello! What's your name?"
    assert answer(["call me Eve", "good morning"]) == "Hello, Eve!"


@pytest.mark.parametrize("said", [[], ["my name is", "Explain SQL to me."]])
def test_all_else_is_answered_by_what_it_is_and_how_to_get_a_real_one(said: list[str]) -> None:
    assert "no AI" in answer(said)
    assert "OPENAI_API_KEY" in answer(said)


async def test_the_stream_is_the_reply_word_by_word() -> None:
    messages = [Message.user("My name is Ada Lovelace.")]
    model = DemoModel()

    *words, whole = [piece async for piece in model.stream(messages, [])]

    assert words == ["Nice ", "to ", "meet ", "you, ", "Ada ", "Lovelace!"]
    assert whole == await model.reply(messages, []) == ModelReply("".join(map(str, words)))
