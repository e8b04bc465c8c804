"""docs/guarantees.md and the marks of the tests tell the same."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMISE: Final = re.compile(r"^\| (G\d+) \| .* \| (.*) \|$", re.MULTILINE)
HOLDER: Final = re.compile(r"`([^`]+)`")

# The suite is public and has none of our marks: the module that runs it carries them.
SUITE: Final = "MemorySuite"
RUNS_THE_SUITE: Final = "tests/memory/test_memory_suite.py"
PARTS_OF_THE_SUITE: Final = sorted((CHECKOUT / "agno_sql/testing/promises").glob("*.py"))


def holders() -> dict[str, list[str]]:
    """Return what the page names as the holders of each promise."""
    page = (CHECKOUT / "docs" / "guarantees.md").read_text()
    return {promise: HOLDER.findall(cell) for promise, cell in PROMISE.findall(page)}


def functions(file: Path) -> Iterator[tuple[str, list[ast.expr]]]:
    """Yield each function as pytest names it, with its decorators."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.decorator_list
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}::{method.name}", method.decorator_list


def marked(nodes: list[ast.expr]) -> Iterator[str]:
    """Yield the promises of each ``pytest.mark.guarantee`` in *nodes*."""
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.guarantee":
            yield from map(ast.literal_eval, node.args)


def marks() -> set[tuple[str, str]]:
    """Return each promise with the test, or the module that runs the suite, that is marked."""
    found = set()
    for file in sorted((CHECKOUT / "tests").rglob("test_*.py")):
        name = str(file.relative_to(CHECKOUT))
        for test, decorators in functions(file):
            found |= {(promise, f"{name}::{test}") for promise in marked(decorators)}
    (of_module,) = (
        node.value
        for node in ast.parse((CHECKOUT / RUNS_THE_SUITE).read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    )
    return found | {(promise, SUITE) for promise in marked([of_module])}


def exists(holder: str) -> bool:
    file, _, name = holder.partition("::")
    if file == SUITE:
        tests = {test for part in PARTS_OF_THE_SUITE for test, _ in functions(part)}
        return any(test.endswith(f"::{name}") for test in tests)
    path = CHECKOUT / file
    return path.is_file() and name in {test for test, _ in functions(path)}


def test_every_promise_names_tests_that_exist() -> None:
    promises = holders()
    numbers = [int(promise.removeprefix("G")) for promise in promises]
    assert numbers == sorted(set(numbers)), "promises are numbered upwards, each once"
    for promise, names in promises.items():
        assert names, f"{promise} names no test"
        for name in names:
            assert exists(name), f"{promise} names {name}, which does not exist"


def test_the_promises_of_the_page_are_those_that_tests_are_marked_with() -> None:
    named = {
        (promise, SUITE if name.startswith(f"{SUITE}::") else name)
        for promise, names in holders().items()
        for name in names
        if "::test_" in name  # the guard around every test is a fixture, which takes no mark
    }
    assert {promise for promise, _ in named} == set(holders())
    assert named == marks()
