"""``agno-sql doctor``: what is broken in a database, and where."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from agno_sql.cli.console import note, out, print_json, styled
from agno_sql.cli.database import existing, open_tables
from agno_sql.cli.text import counted, one_line
from agno_sql.clock import SystemClock
from agno_sql.store.doctor import examine

if TYPE_CHECKING:
    from agno_sql.store.doctor import Finding


@dataclass(slots=True)
class _Check:
    """The first findings of a check, and how many there are."""

    first: list[Finding] = field(default_factory=list)
    count: int = 0


def doctor(*, limit: int, as_json: bool, url: str) -> None:
    """Print what is broken, at most *limit* findings of each check; exit with 1 if anything is."""
    checks = asyncio.run(_examine(existing(url), limit))
    if as_json:
        print_json([_as_record(finding) for check in checks.values() for finding in check.first])
    elif not checks:
        out().print("healthy: nothing is broken")
    for name, check in checks.items():
        if not as_json:
            _show(name, check)
        if more := check.count - len(check.first):
            note(f"and {more:,} more of {name}: see them with a higher --limit")
    if checks:
        raise typer.Exit(1)


async def _examine(url: str, limit: int) -> dict[str, _Check]:
    checks: dict[str, _Check] = {}
    async with open_tables(url) as database:
        async for finding in examine(database, now=SystemClock().now()):
            check = checks.setdefault(finding.check, _Check())
            check.count += 1
            if len(check.first) < limit:
                check.first.append(finding)
    return checks


def _show(name: str, check: _Check) -> None:
    console = out()
    console.print(styled(f"{name}: {counted(check.count, 'finding')}", "bold red"))
    for finding in check.first:
        console.print(styled(f"  {_line(finding)}"), soft_wrap=True)


def _line(finding: Finding) -> str:
    places = {
        "user": finding.user_id,
        "session": finding.session_id,
        "seq": finding.seq,
        "run": finding.run_id,
    }
    place = ", ".join(f"{name} {value}" for name, value in places.items() if value is not None)
    return one_line(f"{place}: {finding.detail}" if place else finding.detail)


def _as_record(finding: Finding) -> dict[str, Any]:
    """Return *finding* for JSON, without the places it does not have."""
    return {name: value for name, value in asdict(finding).items() if value is not None}
