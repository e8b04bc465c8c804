"""Sees every statement of every engine and checks that it keeps to the users it names.

A SELECT, UPDATE or DELETE on a tenant table has to pin ``user_id``: by ``=`` or ``IN``, or by a
join to something that does. This holds for each query of a statement, so also for CTEs and
subqueries, and for each branch of an OR. A statement that crosses tenants by nature says why, in
the execution option ``cross_tenant``; the reasons are listed here.

Seen are SQLAlchemy's cursors, and the drivers' methods that the store calls directly.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Engine, event

from tests.support.statements import direct_statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

TENANT_TABLES: Final = frozenset({"conversations", "messages", "runs"})

# Each is the value of an execution option somewhere in agno_sql; a test holds the two equal.
CROSS_TENANT_REASONS: Final = frozenset(
    {
        "clear_all deletes everything",
        "operators look for users among all",
        "operators ask how much is kept of all users",
        "recovery looks for the interrupted runs of all users",
        "the doctor examines the rows of all users",
    }
)

# Of SQL: a word in lower case, a keyword in upper case, a sign, what stands in parentheses.
Piece: TypeAlias = "str | list[Piece]"
# A tenant table in this query, by its alias, and what its user_id equals: another one's alias,
# or OUTSIDE for a parameter, a CTE, an outer query.
Fact: TypeAlias = tuple[str, str]

OUTSIDE: Final = ""
PIN: Final = "user_id"

_SCHEMA: Final = re.compile(rf"\b\w+\.(?=(?:{'|'.join(sorted(TENANT_TABLES))})\b)")

_DML: Final = re.compile(r"\s*(?:EXPLAIN|WITH|SELECT|INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
_PIECE: Final = re.compile(
    r"""
      (?P<comment>--[^\n]*|/\*.*?\*/)
    | (?P<text>'(?:[^']|'')*')
    | "(?P<quoted>(?:[^"]|"")*)"
    | (?P<sign>::|%\(\w+\)s|:\w+|[<>!=]+)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<other>\S)
    """,
    re.VERBOSE | re.DOTALL,
)
_QUERIES: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES"})
_SETS: Final = frozenset({"UNION", "INTERSECT", "EXCEPT"})
_JOINS: Final = frozenset({"JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS"})
_CLAUSES: Final = frozenset(
    {"FROM", "WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "OFFSET", "RETURNING", "SET", "FOR"}
)
_OPERATORS: Final = frozenset({"=", "==", "IN"})
_KEYWORDS: Final = (
    _QUERIES | _SETS | _JOINS | _CLAUSES | _OPERATORS | {"AND", "OR", "NOT", "ON", "AS", "USING"}
)
_ENDS_A_CONDITION: Final = _CLAUSES | _JOINS | {"ON", "USING", ","}


@dataclass
class TenantGuard:
    """What was seen: the statements that touch users they don't name, and the reasons given."""

    violations: list[str] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)

    def check(self, statement: str, options: Mapping[str, Any]) -> None:
        """Record *statement* if it is DML that crosses tenants without one of the reasons."""
        unpinned = unpinned_tables(statement)
        if not unpinned:
            return
        reason = options.get("cross_tenant")
        if reason in CROSS_TENANT_REASONS:
            self.reasons.add(reason)
            return
        given = "no reason" if reason is None else f"the unlisted reason {reason!r}"
        self.violations.append(f"{', '.join(unpinned)} without user_id, {given}:\n{statement}")

    def take(self) -> list[str]:
        """Return the violations since the last call."""
        taken, self.violations = self.violations, []
        return taken


@contextmanager
def guarded_engines() -> Iterator[TenantGuard]:
    """Yield a guard that sees what all engines of this process execute."""
    guard = TenantGuard()

    def see(
        connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        context: Any,
        _executemany: bool,
    ) -> None:
        options = (
            connection.get_execution_options() if context is None else context.execution_options
        )
        guard.check(statement, options)

    event.listen(Engine, "before_cursor_execute", see)
    try:
        with direct_statements(lambda statement: guard.check(statement, {})):
            yield guard
    finally:
        event.remove(Engine, "before_cursor_execute", see)


@lru_cache(maxsize=1000)
def unpinned_tables(statement: str) -> tuple[str, ...]:
    """Return the tenant tables that a query of *statement* reads or changes for any user."""
    if not _DML.match(statement) or not any(table in statement for table in TENANT_TABLES):
        return ()
    return tuple(_unpinned(_parse(_SCHEMA.sub("", statement))))


def _parse(statement: str) -> list[Piece]:
    open_groups: list[list[Piece]] = [[]]
    for match in _PIECE.finditer(statement):
        piece = match[0]
        if match["comment"]:
            continue
        if piece == "(":
            group: list[Piece] = []
            open_groups[-1].append(group)
            open_groups.append(group)
        elif piece == ")":
            open_groups.pop()
        elif match["quoted"] is not None:
            open_groups[-1].append(match["quoted"].lower())
        elif match["word"] and piece.upper() in _KEYWORDS:
            open_groups[-1].append(piece.upper())
        else:
            open_groups[-1].append(piece.lower())
    return open_groups[0]


def _unpinned(pieces: list[Piece]) -> Iterator[str]:
    for piece in pieces:
        if isinstance(piece, list):
            yield from _unpinned(piece)
    if _is_query(pieces):
        for query in _split(pieces, _SETS):
            yield from _unpinned_of_query(_without_conflict_clause(query))


def _unpinned_of_query(query: Sequence[Piece]) -> Iterator[str]:
    tables = dict(_tenant_tables(query))
    facts: set[Fact] = set()
    for condition in _conditions(query):
        facts |= _facts(condition, tables)
    pinned: set[str] = {OUTSIDE}
    while more := {one for one, other in facts if other in pinned} - pinned:
        pinned |= more
    for alias, table in tables.items():
        if alias not in pinned:
            yield table


def _is_query(pieces: Sequence[Piece]) -> bool:
    first = pieces[0] if pieces else None
    return isinstance(first, str) and (first in _QUERIES or first == "explain")


def _without_conflict_clause(query: list[Piece]) -> list[Piece]:
    """Cut an upsert's DO UPDATE, which changes only the row of the INSERT."""
    for at, pair in enumerate(pairwise(query)):
        if pair == ("ON", "conflict"):
            return query[:at]
    return query


def _tenant_tables(query: Sequence[Piece]) -> Iterator[tuple[str, str]]:
    """Yield alias and table for each tenant table that the query reads or changes."""
    from_clause = expected = False
    for at, piece in enumerate(query):
        if isinstance(piece, list):
            if expected and not _is_query(piece):
                yield from _tenant_tables(["FROM", *piece])
            expected = False
        elif piece in _CLAUSES:
            from_clause = expected = piece == "FROM"
        elif piece in {"JOIN", "UPDATE", "USING"} or (piece == "," and from_clause):
            expected = query[at - 1] != "FOR"
        elif expected and piece not in {"only", "lateral"} and query[at + 1 : at + 2] != ["."]:
            expected = piece == "."
            if piece in TENANT_TABLES:
                yield _alias(piece, query[at + 1 : at + 3]), piece


def _alias(table: str, following: Sequence[Piece]) -> str:
    for piece in following:
        if isinstance(piece, str) and piece.isidentifier() and piece not in _KEYWORDS:
            return piece
        if piece != "AS":
            break
    return table


def _conditions(query: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield what stands behind each WHERE and ON; also those of a join in parentheses."""
    condition: list[Piece] | None = None
    from_clause = False
    for piece in query:
        if isinstance(piece, str) and piece in _ENDS_A_CONDITION:
            if condition is not None:
                yield condition
            condition = [] if piece in {"WHERE", "ON"} else None
            from_clause = piece == "FROM" or (from_clause and piece not in _CLAUSES)
        elif condition is not None:
            condition.append(piece)
        elif from_clause and isinstance(piece, list) and not _is_query(piece):
            yield from _conditions(["FROM", *piece])
    if condition is not None:
        yield condition


def _facts(condition: Sequence[Piece], tables: Mapping[str, str]) -> set[Fact]:
    either = _split(condition, {"OR"})
    if len(either) > 1:
        return set.intersection(*(_facts(branch, tables) for branch in either))
    both = _split(condition, {"AND"})
    if len(both) > 1:
        return set.union(*(_facts(part, tables) for part in both))
    if len(condition) == 1 and isinstance(condition[0], list):
        return _facts(condition[0], tables)
    return _facts_of_comparison(condition, tables)


def _facts_of_comparison(comparison: Sequence[Piece], tables: Mapping[str, str]) -> set[Fact]:
    at = next(
        (i for i, piece in enumerate(comparison) if isinstance(piece, str) and piece in _OPERATORS),
        None,
    )
    if at is None or "NOT" in comparison[:at]:
        return set()
    left = [_side(part, tables) for part in _row(comparison[:at])]
    if comparison[at] == "IN":
        return {(one, OUTSIDE) for one in left if one}
    right = [_side(part, tables) for part in _row(comparison[at + 1 :])]
    if len(left) != len(right):
        right = [OUTSIDE] * len(left)  # a row of columns against a subquery
    facts: set[Fact] = set()
    for one, other in zip(left, right, strict=True):
        if one is not None and other is not None and one != other:
            facts |= {(one, other), (other, one)}
    return facts


def _row(side: Sequence[Piece]) -> list[list[Piece]]:
    """Return the elements of a row value, or the one expression that stands alone."""
    if len(side) == 1 and isinstance(side[0], list) and not _is_query(side[0]):
        return _split(side[0], {","})
    return [list(side)]


def _side(expression: Sequence[Piece], tables: Mapping[str, str]) -> str | None:
    """Return whose user_id *expression* is, OUTSIDE if nobody's here, None if it can't be told."""
    match list(expression):
        case [str(alias), ".", "user_id"]:
            return alias if alias in tables else OUTSIDE
        case ["user_id"]:
            return next(iter(tables)) if len(tables) == 1 else None
    return None if _mentions_a_user(expression) else OUTSIDE


def _mentions_a_user(pieces: Sequence[Piece]) -> bool:
    return any(
        piece == PIN
        or (isinstance(piece, list) and not _is_query(piece) and _mentions_a_user(piece))
        for piece in pieces
    )


def _split(pieces: Sequence[Piece], separators: frozenset[str] | set[str]) -> list[list[Piece]]:
    parts: list[list[Piece]] = [[]]
    for piece in pieces:
        if isinstance(piece, str) and piece in separators:
            parts.append([])
        else:
            parts[-1].append(piece)
    return parts
