"""The verdict: what was told, held against what is stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from tests.chaos import mischief
from tests.chaos.audit import audit
from tests.chaos.fault import (
    CONTRADICTED,
    ERROR,
    LOST,
    REFUSED,
    REORDERED,
    TOOL_TWICE,
    TORN,
    TWICE,
    Fault,
)
from tests.chaos.script import COUNTED, IDEMPOTENT, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.job import Job
    from tests.chaos.journal import Journal, Output, RunKey
    from tests.chaos.stored import Stored
    from tests.chaos.storm import Aftermath

# "Nothing was stored."
_REFUSALS: Final = frozenset({"StoreUnavailableError", "StoreError"})
# What a caller may be told while all this happens; anything else is a bug.
_EXPECTED: Final = _REFUSALS | {
    "OutcomeUnknownError",
    "ConversationBusyError",
    "RunLostError",
    "RunFailedError",
    "RunCancelledError",
    "RunTimeoutError",
    "CancelledError",
    "MaxLoopsError",
    "ModelUnavailableError",
}
# What has to be done in each minute of the storm, by a slow and busy machine too.
_RUNS_A_MINUTE: Final = 40
_ADDS_A_MINUTE: Final = 20
_RESUMED_A_MINUTE: Final = 4
_KILLS_A_MINUTE: Final = 4
_FREEZES_A_MINUTE: Final = 0.5
_SERVER_KILLS_A_MINUTE: Final = 1


@dataclass(frozen=True)
class Verdict:
    """*figures* are for the table; *shortfalls* say that too little was done to judge."""

    faults: list[Fault]
    shortfalls: list[str]
    figures: dict[str, int]

    @property
    def is_good(self) -> bool:
        return not self.faults and not self.shortfalls


def judge(aftermath: Aftermath) -> Verdict:
    """Return the verdict on what a storm left."""
    journal, stored = aftermath.journal, aftermath.stored
    faults = [
        *journal.faults,
        *audit(stored),
        *_lost_adds(journal, stored),
        *_lost_answers(journal, stored),
        *_torn(journal, stored),
        *_refused(journal, stored),
        *_contradicted(journal, stored),
        *_reordered(journal, stored),
        *_tools_twice(journal),
        *_errors(journal),
    ]
    figures = _figures(journal, stored)
    return Verdict(faults, _shortfalls(aftermath, figures), figures)


def _lost_adds(journal: Journal, stored: Stored) -> Iterator[Fault]:
    rows = stored.by_seq()
    for added in journal.added:
        job = added.job
        for seq, content in zip(added.seqs, job.contents, strict=True):
            row = rows.get((job.user, job.session, seq))
            if row is None or row.content != content:
                yield Fault(LOST, f"acknowledged as seq {seq}: {content}; stored is {row}")


def _lost_answers(journal: Journal, stored: Stored) -> Iterator[Fault]:
    rows = stored.by_seq()
    runs = {run.key: run for run in stored.runs}
    for output in _counted(journal):
        user, session, run_id = output.run
        run = runs.get(output.run)
        if run is None or run.status != "completed":
            yield Fault(LOST, f"{output.how}: answered {output.run}; stored is {run}", run_id)
        for seq, step, role, content in output.messages:
            row = rows.get((user, session, seq))
            told = (run_id, step, role, content)
            if row is None or (row.run_id, row.run_step, row.role, row.content) != told:
                yield Fault(LOST, f"acknowledged as seq {seq}: {told}; stored is {row}", run_id)


def _torn(journal: Journal, stored: Stored) -> Iterator[Fault]:
    """Yield the batches that are stored in part, or not side by side."""
    seqs = {(row.user, row.session, row.content): row.seq for row in stored.messages}
    for job in _adds(journal):
        found = [seqs.get((job.user, job.session, content)) for content in job.contents]
        first = found[0]
        whole = [None if first is None else first + n for n in range(len(found))]
        if found != whole:
            yield Fault(TORN, f"{job.contents} are stored as {found}")


def _refused(journal: Journal, stored: Stored) -> Iterator[Fault]:
    contents = {(row.user, row.session, row.content) for row in stored.messages}
    for refused in journal.refused:
        job = refused.job
        if job.kind == "add" and refused.error in _REFUSALS:
            for content in job.contents:
                if (job.user, job.session, content) in contents:
                    yield Fault(REFUSED, f"{content} after {refused.error}: {refused.text}")


def _contradicted(journal: Journal, stored: Stored) -> Iterator[Fault]:
    """Yield the runs of which two callers were told different ends, or one that is not stored."""
    answers: dict[RunKey, Output] = {}
    for output in journal.outputs:
        first = answers.setdefault(output.run, output)
        if (first.content, first.messages) != (output.content, output.messages):
            yield Fault(TWICE, f"{output.run}: {first} and {output}", output.run[2])
    runs = {run.key: run for run in stored.runs}
    for refused in journal.refused:
        run, answer = runs.get(refused.job.run_key), answers.get(refused.job.run_key)
        what = f"{refused.job.run_key}: told {refused.error}: {refused.text}; stored is {run}"
        # A failure that is told again was read from what is stored.
        if refused.error == "RunFailedError" and (run is None or run.status != "failed"):
            yield Fault(CONTRADICTED, what, refused.job.run_id)
        is_later = answer is not None and journal.issued[refused.job.number].at > answer.at
        if is_later and refused.error == "RunCancelledError":
            yield Fault(CONTRADICTED, f"{what}; answered before: {answer}", refused.job.run_id)


def _reordered(journal: Journal, stored: Stored) -> Iterator[Fault]:
    """Yield what stands before a message that was acknowledged before it was asked for."""
    asked: dict[str, float] = {}
    acknowledged: dict[str, float] = {}
    for issued in journal.issued.values():
        job = issued.job
        for name in [job.run_id] if job.kind == "run" else job.contents:
            asked.setdefault(name, issued.at)
    for added in journal.added:
        acknowledged |= dict.fromkeys(added.job.contents, added.at)
    for output in journal.outputs:
        acknowledged.setdefault(output.run[2], output.at)
    for (user, session), rows in stored.by_conversation().items():
        earliest = inf
        for row in reversed(rows):
            name = row.run_id or row.content
            if asked.get(name, inf) > earliest:
                what = (
                    f"{user}, {session}: seq {row.seq} was asked for after a later one was stored"
                )
                yield Fault(REORDERED, f"{what}: {row}", row.run_id or "")
            earliest = min(earliest, acknowledged.get(name, inf))


def _tools_twice(journal: Journal) -> Iterator[Fault]:
    for key, names in journal.begun.items():
        if len(names) > 1 and not set(names) <= IDEMPOTENT:
            run_id = journal.runs_of_keys[key][2]
            yield Fault(TOOL_TWICE, f"{run_id}: {names} for key {key[:8]}", run_id)


def _errors(journal: Journal) -> Iterator[Fault]:
    for refused in journal.refused:
        if refused.error != "died" and refused.error not in _EXPECTED:
            what = f"{refused.job}: {refused.error}: {refused.text}"
            yield Fault(ERROR, what, refused.job.run_id)
    for what in journal.logged:
        if what.startswith("asyncio"):
            yield Fault(ERROR, journal.examples[what])


def _shortfalls(aftermath: Aftermath, figures: dict[str, int]) -> list[str]:
    minutes, done = aftermath.options.seconds / 60, aftermath.journal.mischief
    least = {
        "acknowledged runs": (figures["acknowledged runs"], minutes * _RUNS_A_MINUTE),
        "acknowledged adds": (len(aftermath.journal.added), minutes * _ADDS_A_MINUTE),
        "resumed runs": (figures["resumed runs"], minutes * _RESUMED_A_MINUTE),
        "workers killed": (done[mischief.KILLED], minutes * _KILLS_A_MINUTE),
    }
    if minutes >= 1:  # luck has no say in it any more
        least["workers frozen"] = (done[mischief.FROZEN], minutes * _FREEZES_A_MINUTE)
    if aftermath.options.database == "postgresql":
        kills = minutes * _SERVER_KILLS_A_MINUTE
        least["server kills"] = (done[mischief.SERVER_KILLED], kills)
    return [
        f"{what}: {was}, which is less than {wanted:.1f}"
        for what, (was, wanted) in least.items()
        if was < wanted
    ]


def _figures(journal: Journal, stored: Stored) -> dict[str, int]:
    messages = {
        (*output.run[:2], message[0]) for output in _counted(journal) for message in output.messages
    }
    messages |= {
        (added.job.user, added.job.session, seq) for added in journal.added for seq in added.seqs
    }
    statuses = Counter(run.status for run in stored.runs)
    repeated = [len(names) - 1 for names in journal.begun.values() if set(names) <= IDEMPOTENT]
    return {
        "acknowledged messages": len(messages),
        "acknowledged runs": len({output.run for output in journal.outputs}),
        "acknowledged again": len(journal.outputs) - len({out.run for out in journal.outputs}),
        "stored conversations": len(stored.conversations),
        "stored messages": len(stored.messages),
        "stored runs": len(stored.runs),
        **{f"{status} runs": statuses[status] for status in ("completed", "failed", "cancelled")},
        "told cancelled but completed": len(_cancelled_late(journal, stored)),
        "resumed runs": sum(run.attempt > 1 for run in stored.runs),
        "highest attempt": max((run.attempt for run in stored.runs), default=0),
        "tool calls": len(journal.begun),
        "repeated idempotent ones": sum(repeated),
    }


def _cancelled_late(journal: Journal, stored: Stored) -> set[RunKey]:
    """Return the runs that were cancelled when their answer was being stored already.

    Nothing is wrong with them: whoever asks again is given the answer.
    """
    completed = {run.key for run in stored.runs if run.status == "completed"}
    told = {r.job.run_key for r in journal.refused if r.error == "RunCancelledError"}
    return told & completed


def _counted(journal: Journal) -> list[Output]:
    return [output for output in journal.outputs if kind_of(output.run[1]) in COUNTED]


def _adds(journal: Journal) -> Iterator[Job]:
    return (issued.job for issued in journal.issued.values() if issued.job.kind == "add")
