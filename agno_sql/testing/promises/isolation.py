"""Users and sessions are kept apart, whatever their ids look like."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from agno_sql.errors import InvalidInputError, InvalidSessionIdError, InvalidUserIdError
from agno_sql.message import Message
from agno_sql.testing.promises.opening import NFC_NAME, NFD_NAME, MemoryTest, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agno_sql.memory.protocol import Memory


# Ids that a careless comparison, pattern, path or statement takes for one another.
LOOKALIKE_IDS: Final = (
    *("alice", "Alice", "ALICE", "alice ", " alice", "alice\u00a0", "alice\u200b", "alic", "al_ce"),
    *("al%", "%", "_", "*", "default ", "Default", "None", "null", "0", "00", "0.0", "1", "true"),
    *("alice'; DROP TABLE messages; --", "' OR '1'='1", '" OR ""="', "alice\\", "alice\\'"),
    *("alice/bob", "alice/../bob", "../alice", "/", "alice:bob", "alice,bob", "{alice}", "$1", "?"),
    *(NFC_NAME, NFD_NAME, "stra\u00dfe", "strasse", "\u0130", "i\u0307", "I", "i", "\u0131"),
    *("\u202ealice", "\ufeffalice", "\ufb01", "fi", "\uff41lice", "\u0430lice"),
    *("\U0001f600", "\U0001f600\ufe0f", "\U0001f600" * 255, "\U0001f600" * 254 + "\U0001f601"),
    *("a" * 255, "a" * 254, "a" * 254 + "A"),
)

TOO_LONG_OR_SHORT: Final = ("", "a" * 256, "\U0001f600" * 256)
FORBIDDEN_CHARACTERS: Final = ("\x00", "a\x00b", "a\nb", "\t", "\x1f", "\x7f", "\x85", "\x9f")
LONE_SURROGATES: Final = ("\ud83d", "a\udc00", "\udcff\ud800")
NO_STRINGS: Final = (7, b"alice", ["alice"], 1.5, True)
BAD_IDS: Final = TOO_LONG_OR_SHORT + FORBIDDEN_CHARACTERS + LONE_SURROGATES + NO_STRINGS


class IsolationPromises(MemoryTest):
    """Tenancy."""

    async def test_the_sessions_of_a_user_are_kept_apart(self, memory: Memory) -> None:
        async def write(session: str) -> Message:
            return await memory.add(Message.user(session), "alice", session_id=session)

        await self._assert_kept_apart(
            write,
            lambda session: memory.get_messages("alice", session_id=session),
            lambda session: memory.clear("alice", session_id=session),
        )

    async def test_users_with_ids_that_look_alike_are_kept_apart(self, memory: Memory) -> None:
        await self._assert_kept_apart(
            lambda user: memory.add(Message.user(user), user), memory.get_messages, memory.clear
        )

    async def _assert_kept_apart(
        self,
        write: Callable[[str], Coroutine[Any, Any, Message]],
        read: Callable[[str], Coroutine[Any, Any, list[Message]]],
        clear: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        assert len(set(LOOKALIKE_IDS)) == len(LOOKALIKE_IDS)
        stored = {id_: [await write(id_), await write(id_)] for id_ in LOOKALIKE_IDS}
        for id_ in LOOKALIKE_IDS:
            assert numbered(stored[id_]) == [(1, id_), (2, id_)]
            assert await read(id_) == stored[id_]
        for cleared in LOOKALIKE_IDS[::2]:
            await clear(cleared)
            stored[cleared] = []
        for id_ in LOOKALIKE_IDS:
            assert await read(id_) == stored[id_]

    async def test_user_and_session_are_never_run_together(self, memory: Memory) -> None:
        keys = [
            (text[:cut], text[cut:])
            for text in ("a/b/c", "a:b:c", "a,b,c", "aaaa", "a\u00a0\u00a0b")
            for cut in range(1, len(text))
        ]
        for user, session in keys:
            await memory.add(Message.user(f"{user}|{session}"), user, session_id=session)
        for (user, session), other in combinations(keys, 2):
            stored = await memory.get_messages(user, session_id=session)
            assert numbered(stored) == [(1, f"{user}|{session}")]
            assert (user, session) != other

    @pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
    async def test_a_bad_user_id_is_refused_by_name_and_stores_nothing(
        self, memory: Memory, bad: Any
    ) -> None:
        expected = "255" if isinstance(bad, str) and bad in TOO_LONG_OR_SHORT else ""
        await self._assert_refused(memory, InvalidUserIdError, f"user_id.*{expected}", bad, "s")

    @pytest.mark.parametrize("bad", [*BAD_IDS, None], ids=ascii)
    async def test_a_bad_session_id_is_refused_by_name_and_stores_nothing(
        self, memory: Memory, bad: Any
    ) -> None:
        expected = "255" if isinstance(bad, str) and bad in TOO_LONG_OR_SHORT else ""
        await self._assert_refused(
            memory, InvalidSessionIdError, f"session_id.*{expected}", "u", bad
        )

    async def _assert_refused(
        self, memory: Memory, error: type[InvalidInputError], words: str, user: Any, session: Any
    ) -> None:
        kept = await memory.add(Message.user("kept"), "u", session_id="s")
        for call in (
            lambda: memory.add(Message.user(""), user, session_id=session),
            lambda: memory.extend([Message.user("")], user, session_id=session),
            lambda: memory.extend([], user, session_id=session),
            lambda: memory.get_messages(user, session_id=session),
            lambda: memory.clear(user, session_id=session),
            lambda: memory.size(user, session_id=session),
        ):
            with pytest.raises(error, match=words):
                await cast("Any", call)()
        assert await memory.get_messages("u", session_id="s") == [kept]
        assert (await memory.add(Message.user(""), "u", session_id="s")).seq == 2
        assert await memory.size() == 0
