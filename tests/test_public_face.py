"""Names that users rely on: what is exported exists, and what exists is documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from dataclasses import FrozenInstanceError, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

import agno_sql
from agno_sql import errors
from agno_sql.message import Message, ToolCall, Usage


@pytest.mark.parametrize("name", agno_sql.__all__)
def test_every_exported_name_exists_and_says_what_it_is(name: str) -> None:
    value: Any = getattr(agno_sql, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Manager'"):
        _ = agno_sql.Manager


def test_dir_shows_what_is_exported() -> None:
    assert set(agno_sql.__all__) <= set(dir(agno_sql))


def test_every_module_can_be_imported_on_its_own() -> None:
    for module in pkgutil.walk_packages(agno_sql.__path__, "agno_sql."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def all_errors() -> list[type[errors.AgnoSQLError]]:
    found = [errors.AgnoSQLError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__]


def test_the_tree_at_the_top_of_the_errors_file_is_the_tree() -> None:
    assert errors.__doc__
    drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__)) - {
        "ValueError",
        "TimeoutError",
        "ImportError",
    }
    assert drawn == {kind.__name__ for kind in all_errors()}


def test_each_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(codes) == len(set(codes))


def test_callers_mistakes_are_value_errors() -> None:
    for kind in all_errors():
        if issubclass(kind, errors.InvalidInputError):
            assert issubclass(kind, ValueError)
            assert not kind.retryable


RECORDS = [
    Message.user("hello"),
    ToolCall("1", "look", "{}"),
    Usage(1, 2),
    agno_sql.RunOutput(content="x", user_id="u", session_id="s", run_id="r", model="m"),
    agno_sql.Session(
        user_id="u",
        session_id="s",
        message_count=1,
        created_at=datetime.now(UTC),
        last_active_at=datetime.now(UTC),
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_frozen_and_slotted(record: Any) -> None:
    assert is_dataclass(record)
    assert not hasattr(record, "__dict__")
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(record)[0].name, "other")
