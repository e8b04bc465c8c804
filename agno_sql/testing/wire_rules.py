"""The rules that OpenAI applies to the messages of a Chat Completions request."""

from __future__ import annotations

import re
from typing import Any, Final

TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SPEAKER_NAME: Final = re.compile(r"[^\s<|\\/>]{1,64}")
_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool"})


def violation(messages: list[dict[str, Any]]) -> str | None:
    """Return the first rule that *messages* breaks, worded for a test's output; ``None`` if none.

    Guaranteed for messages without a violation: there is at least one, each role is legal, each
    content is a string (or ``None`` where an assistant calls tools), and each tool call has
    exactly one result, before the next message that is no result. Stricter than OpenAI in two
    points: content in parts is refused, and so is a second result or call of the same id.
    """
    if not isinstance(messages, list) or not messages:
        return "messages must be a non-empty array"
    unanswered: list[str] = []
    for position, message in enumerate(messages):
        place = f"messages[{position}]"
        broken = _shape_violation(message) or _order_violation(message, unanswered)
        if broken:
            return f"{place}: {broken}"
        unanswered = _still_unanswered(message, unanswered)
    if unanswered:
        return f"the conversation ends while tool calls lack their result: {unanswered}"
    return None


def _shape_violation(message: Any) -> str | None:
    if not isinstance(message, dict):
        return "must be an object"
    role = message.get("role")
    if role not in _ROLES:
        return f"role {role!r} is not one of {sorted(_ROLES)}"
    if "name" in message and not _matches(_SPEAKER_NAME, message["name"]):
        return f"name {message['name']!r} does not match {_SPEAKER_NAME.pattern}"
    return _content_violation(message) or _calls_violation(message)


def _content_violation(message: dict[str, Any]) -> str | None:
    content = message.get("content")
    if content is None and "tool_calls" not in message:
        return "content may be null only where an assistant calls tools"
    return None if content is None or isinstance(content, str) else "content must be a string"


def _calls_violation(message: dict[str, Any]) -> str | None:
    if "tool_calls" not in message:
        return None
    if message["role"] != "assistant":
        return f"only an assistant message has tool_calls, not {message['role']}"
    calls = message["tool_calls"]
    if not isinstance(calls, list) or not calls:
        return "tool_calls must be a non-empty array"
    for position, call in enumerate(calls):
        if broken := _call_violation(call):
            return f"tool_calls[{position}]: {broken}"
    ids = [call["id"] for call in calls]
    return None if len(set(ids)) == len(ids) else f"tool_calls repeat an id: {ids}"


def _call_violation(call: Any) -> str | None:
    if not isinstance(call, dict) or call.get("type") != "function":
        return "must be an object of type 'function'"
    if not isinstance(call.get("id"), str) or not call["id"]:
        return "id must be a non-empty string"
    function = call.get("function")
    if not isinstance(function, dict) or not _matches(TOOL_NAME, function.get("name")):
        return f"function.name must match {TOOL_NAME.pattern}"
    if not isinstance(function.get("arguments"), str):
        return "function.arguments must be a string"
    return None


def _order_violation(message: dict[str, Any], unanswered: list[str]) -> str | None:
    if message["role"] != "tool":
        return f"these tool calls lack their result: {unanswered}" if unanswered else None
    call_id = message.get("tool_call_id")
    if call_id not in unanswered:
        return f"tool_call_id {call_id!r} answers no open call of the preceding assistant message"
    return None


def _still_unanswered(message: dict[str, Any], unanswered: list[str]) -> list[str]:
    if message["role"] == "tool":
        return [call_id for call_id in unanswered if call_id != message["tool_call_id"]]
    return [call["id"] for call in message.get("tool_calls", ())]


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def request_violation(body: Any) -> str | None:
    """Return which rule the body of a Chat Completions request breaks, ``None`` if it is legal."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return "the body must be an object that names a model"
    return _tools_violation(body) or violation(body.get("messages", []))


def _tools_violation(body: dict[str, Any]) -> str | None:
    if "tools" not in body:
        used = "parallel_tool_calls" in body
        return "parallel_tool_calls is only allowed with tools" if used else None
    if not isinstance(body["tools"], list) or not body["tools"]:
        return "tools must be a non-empty array"
    for position, tool in enumerate(body["tools"]):
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
            return f"tools[{position}].function.name must match {TOOL_NAME.pattern}, got {name!r}"
    return None
