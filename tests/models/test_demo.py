from __future__ import annotations

import pytest

from agno_sql import Message, ModelReply
from agno_sql.models.demo import DemoModel, answer


def _said(*texts: str) -> list[Message]:
    """Return user messages with an answer after each but the last."""
    messages: list[Message] = []
    for text in texts:
        messages += [Message.user(text), Message.assistant("Fine.")]
    return messages[:-1]


@pytest.mark.parametrize(
    "told, name",
    [
        ("My name is Alice.", "Alice"),
        ("my name is bob and I like tea", "bob"),
        ("MY NAME IS ALICE AND I LIKE TEA", "ALICE"),
        ("hello, my name's Zoë!", "Zoë"),
        ("My name\u2019s Zoe\u0308", "Zo\u00eb"),
        ("I am called Anna-Lena O\u2019Brien, hi", "Anna-Lena O'Brien"),
        ("I'm called Łukasz 😀", "Łukasz"),
        ("Please call me Ludwig van Beethoven please", "Ludwig van Beethoven"),
        ("my name is 李雷。", "李雷"),
        ("My name is प्रिया शर्मा", "प्रिया शर्मा"),
        ("My name is J. R. R. Tolkien.", "J. R. R. Tolkien"),
        ('my name is "Bob"', "Bob"),
        ("my name is\nBob\nand more", "Bob"),
        ("My name is Bob. Call me Rob.", "Rob"),
        ("My name is Bob\x00\x1b[31m", "Bob"),
        ("call me Bob\ud800", "Bob"),
    ],
)
def test_a_name_is_found_as_it_was_told(told: str, name: str) -> None:
    assert answer(_said(told)) == f"Nice to meet you, {name}!"
    assert answer(_said(told, "What's my name?")) == f"Your name is {name}."


@pytest.mark.parametrize(
    "told",
    [
        "hello",
        "My name is not Bob",
        "don't call me Bob",
        "Do not call me Bob",
        "never call me Bob",
        "call me later",
        "call me when you can",
        "my name is 😀",
        "my name is",
        "my name is what?",
        "Your name is Bob",
        "My dog is called Rex",
    ],
)
def test_no_name_is_invented(told: str) -> None:
    assert answer(_said(told, "What's my name?")) == "You have not told me your name."


@pytest.mark.parametrize(
    "question",
    [
        "What's my name?",
        "whats my name",
        "WHAT IS MY NAME?!",
        "What\u2019s my name",
        "Who am I?",
        "Do you remember my name?",
        "Can you tell me my name",
        "my name?",
    ],
)
def test_the_question_for_the_name_may_be_put_in_many_ways(question: str) -> None:
    assert answer(_said("My name is Eve.", question)) == "Your name is Eve."


def test_the_latest_name_wins_and_only_users_can_tell_it() -> None:
    messages = [
        Message.user("My name is Ann."),
        Message.assistant("My name is Hal."),
        Message.user("Call me Annie!"),
        Message.tool("my name is Tool", tool_call_id="1"),
        Message.user("who am I"),
    ]

    assert answer(messages) == "Your name is Annie."


async def test_instructions_tell_no_name_and_are_not_counted() -> None:
    messages = [Message.system("my name is System"), Message.user("How many messages are there?")]

    assert (await DemoModel().reply(messages, [])).content == "I see 1 message."
    asked = [*messages, Message.assistant("I see 1 message."), Message.user("who am I?")]
    assert (await DemoModel().reply(asked, [])).content == "You have not told me your name."


@pytest.mark.parametrize(
    "question, said",
    [
        ("What did I say first?", 'You first said: "one"'),
        ("what was the last thing I said?", 'You last said: "two"'),
        ("What was my first message?", 'You first said: "one"'),
        ("what did you say last?", 'I last said: "Fine."'),
        ("What was your previous answer?", 'I last said: "Fine."'),
        ("How many messages do you see?", "I see 5 messages."),
    ],
)
def test_it_knows_what_was_said(question: str, said: str) -> None:
    assert answer(_said("one", "two", question)) == said


def test_what_was_never_said_is_not_made_up() -> None:
    assert answer(_said("What did I say first?")) == "You said nothing before that I can see."


@pytest.mark.parametrize("messages", [[], [Message.assistant("hi")], _said("Explain SQL to me.")])
def test_anything_else_is_answered_by_what_it_is_and_how_to_get_a_real_one(
    messages: list[Message],
) -> None:
    assert "no AI" in answer(messages)
    assert "OPENAI_API_KEY" in answer(messages)


def test_it_greets_by_name() -> None:
    assert answer(_said("Hello there")) == "Hello! What's your name?"
    assert answer(_said("call me Eve", "good morning")) == "Hello, Eve!"


async def test_the_stream_is_the_reply_word_by_word() -> None:
    messages = _said("My name is Anna-Lena O'Brien.", "who am I?")
    model = DemoModel()

    *words, whole = [piece async for piece in model.stream(messages, [])]

    assert words == ["Your ", "name ", "is ", "Anna-Lena ", "O'Brien."]
    assert whole == await model.reply(messages, []) == ModelReply("Your name is Anna-Lena O'Brien.")


def test_a_huge_message_is_answered_at_once() -> None:
    assert answer(_said("what i say " * 100_000)) == answer(_said("x"))
