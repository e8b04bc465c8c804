"""Every text is read back as it was given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agno_sql.message import Message, ToolCall, Usage
from agno_sql.testing.promises.opening import NFC_NAME, NFD_NAME, MemoryTest

if TYPE_CHECKING:
    from agno_sql.memory.protocol import Memory


# Texts that a database, an encoding or an escape of either tends to change.
HARD_TEXTS: Final = (
    *("", " ", "\n", " \t\r\n ", "trailing  ", "NULL", "null", "0", "''", "\\", "\\x00", "\\u0000"),
    *("\x00", "a\x00b", "\x00\x00", "\\\x00", "\x01\x02\x1f\x7f\x80\x9f"),
    *("\x10", "\x10\x10", "\x100000", "\x10D800", "\x10d800", "a\x10\x00\x10", "\x10\\", "\x100"),
    *("\ud800", "\udfff", "\udc00\ud800", "a\udcffb", "\ud83d\ude00", "\U0001f600\ud83d"),
    *("\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c", "\u0645\u0631\u062d\u0628\u0627"),
    *(NFC_NAME, NFD_NAME, "z\u0335\u0321\u0322a\u0334\u0353l\u0337go", "\u2028\u2029\ufeff"),
    *("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U00020bb7", "\U0010ffff", "\uffff\ufffe"),
    *("%s %(x)s :x $1 ? {x} {{x}}", "'; DROP TABLE messages; --", '{"a": "\\u0000"}', "\x1b[31m"),
)


class ContentPromises(MemoryTest):
    """Lossless content."""

    async def test_any_text_is_read_back_as_it_was_in_every_field(self, memory: Memory) -> None:
        for text in HARD_TEXTS:
            await memory.clear("alice")
            call = ToolCall(id=text or "-", name=text or "-", arguments=text)
            given = [
                Message.system(text),
                Message.user(text, name=text),
                Message.assistant(text, [call, ToolCall("2", "f", text)]),
                Message.tool(text, tool_call_id=text or "-", name=text),
            ]
            stored = await memory.extend(given, "alice")
            assert [replace(m, seq=None, created_at=None) for m in stored] == given
            assert await memory.get_messages("alice") == stored

    async def test_every_character_is_read_back(self, memory: Memory) -> None:
        everything = "".join(map(chr, range(0x3000))) + "".join(map(chr, range(0xD7F0, 0x10100)))
        stored = await memory.add(Message.user(everything), "alice")
        assert (stored.content, stored.name) == (everything, None)
        (read,) = await memory.get_messages("alice")
        assert read.content == everything

    async def test_a_message_of_five_megabytes_is_read_back(self, memory: Memory) -> None:
        text = "0123456789abcde\u00e9" * (5 * 1024 * 1024 // 16)
        await memory.add(Message.user(text), "alice")
        (read,) = await memory.get_messages("alice")
        assert read.content == text

    async def test_a_message_keeps_all_its_fields(self, memory: Memory) -> None:
        calls = (
            ToolCall(id="call_1", name="look_up", arguments='{"b": 1,  "a": 1.0, "a": 2}'),
            ToolCall(id="call_2", name="look_up", arguments="not json"),
            ToolCall(id="call_1", name="look_up", arguments=""),
        )
        given = [
            Message(
                role="assistant",
                content="",
                tool_calls=calls,
                name="agent",
                run_id="run-1",
                run_step=3,
                usage=Usage(2**40, 0),
            ),
            Message(role="tool", content="{}", tool_call_id="call_2", name="look_up", run_id="!~"),
            Message(role="user", content="", name=""),
            Message(role="assistant", content="answer"),
        ]
        await memory.extend(given, "alice")
        stored = await memory.get_messages("alice")
        assert [replace(m, seq=None, created_at=None) for m in stored] == given
        assert [call.arguments for call in stored[0].tool_calls] == [c.arguments for c in calls]
