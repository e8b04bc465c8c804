"""The report: a line of progress, and the table at the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from tests.chaos import mischief
from tests.chaos.fault import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.chaos.fault import Fault
    from tests.chaos.journal import Journal
    from tests.chaos.storm import Aftermath
    from tests.chaos.verdict import Verdict

_MOST_FAULTS: Final = 20


def progress(journal: Journal, seconds: float) -> str:
    done = journal.mischief
    return (
        f"{seconds:6.1f} s: {journal.told['output']} answers, {len(journal.added)} adds "
        f"acknowledged; {done[mischief.KILLED]} workers killed, {done[mischief.FROZEN]} frozen, "
        f"{done[mischief.SERVER_KILLED]} server kills; {sum(journal.errors.values())} errors"
    )


def report(aftermath: Aftermath, verdict: Verdict) -> Iterator[str]:
    """Yield the lines of the table, and the evidence of what must not be."""
    options, journal = aftermath.options, aftermath.journal
    yield f"{options.database}, {options.seconds:g} s, {options.processes} processes, seed {options.seed}"
    yield from _section("done", verdict.figures)
    yield from _section("mischief", journal.mischief)
    failed = Counter(run.error_type or "" for run in aftermath.stored.runs if run.error_type)
    yield from _section("runs that ended without an answer, as stored", failed)
    yield from _section("errors, as callers saw them", journal.errors)
    yield from _section("logged by the library", journal.logged)
    found = Counter(fault.kind for fault in verdict.faults)
    yield from _section("verdict", {kind: found[kind] for kind in KINDS})
    for shortfall in verdict.shortfalls:
        yield f"too little was done: {shortfall}"
    yield from _evidence(journal, verdict.faults)
    yield f"{'good' if verdict.is_good else 'BAD'} (seed {options.seed})"


def _section(title: str, figures: Mapping[str, int]) -> Iterator[str]:
    yield ""
    yield title
    for name, figure in figures.items():
        yield f"  {figure:>8}  {name}"


def _evidence(journal: Journal, faults: list[Fault]) -> Iterator[str]:
    shown: set[str] = set()
    for fault in faults[:_MOST_FAULTS]:
        yield ""
        yield f"{fault.kind}: {fault.what}"
        if fault.run_id and fault.run_id not in shown:
            shown.add(fault.run_id)
            yield from (f"    {line}" for line in journal.timeline(fault.run_id))
    if len(faults) > _MOST_FAULTS:
        yield f"… and {len(faults) - _MOST_FAULTS} more"
