"""A short storm over each database, and that its verdict finds what is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

import pytest

from tests.chaos.fault import (
    CONTRADICTED,
    COUNTERS,
    CROSS_TENANT,
    DUPLICATED,
    ERROR,
    INVALID,
    LOST,
    REFUSED,
    REORDERED,
    RUNNING,
    TOOL_TWICE,
    TORN,
    TWICE,
)
from tests.chaos.journal import Refused
from tests.chaos.report import report
from tests.chaos.script import CHARGE, MIXED, NOTES, TALK, kind_of
from tests.chaos.storm import Aftermath, Options, storm
from tests.chaos.verdict import judge
from tests.support.postgres import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.site import DatabaseName
    from tests.chaos.stored import MessageRow

pytestmark = pytest.mark.timeout(300)  # a busy machine takes its time to clear up

SECONDS = 10.0


@cache
def aftermath_of(database: DatabaseName) -> Aftermath:
    """Return what a storm left; one for all tests of a database."""
    seed = SystemRandom().randrange(10**6)
    options = Options(database=database, seconds=SECONDS, seed=seed, users=20)
    return asyncio.run(storm(options, lambda _: None))


@pytest.mark.guarantee("G51")
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_whoever_dies_nothing_is_lost_doubled_or_mixed_up(database: DatabaseName) -> None:
    """Processes are killed and frozen in the middle of runs, and the server too."""
    aftermath = aftermath_of(database)
    verdict = judge(aftermath)
    assert verdict.is_good, "\n".join(report(aftermath, verdict))


def change(aftermath: Aftermath, row: MessageRow, *others: MessageRow) -> None:
    """Put *others* in the place of a stored message."""
    place = aftermath.stored.messages.index(row)
    aftermath.stored.messages[place : place + 1] = others


def acknowledged_note(aftermath: Aftermath) -> MessageRow:
    added = next(a for a in aftermath.journal.added if kind_of(a.job.session) == NOTES)
    return aftermath.stored.by_seq()[added.job.user, added.job.session, added.seqs[0]]


def turn(aftermath: Aftermath) -> list[MessageRow]:
    """Return the messages of an acknowledged run that called a tool."""
    rows = aftermath.stored.by_seq()
    output = next(
        output
        for output in aftermath.journal.outputs
        if kind_of(output.run[1]) == TALK and len(output.messages) > 3
    )
    return [rows[(*output.run[:2], message[0])] for message in output.messages]


def forget_a_note(aftermath: Aftermath) -> None:
    change(aftermath, acknowledged_note(aftermath))


def forget_a_step(aftermath: Aftermath) -> None:
    change(aftermath, turn(aftermath)[1])


def store_a_note_twice(aftermath: Aftermath) -> None:
    row = acknowledged_note(aftermath)
    change(aftermath, row, row, row._replace(seq=row.seq + 1))


def store_a_step_twice(aftermath: Aftermath) -> None:
    row = turn(aftermath)[2]
    change(aftermath, row, row, row._replace(content="another"))


def swap_two_steps(aftermath: Aftermath) -> None:
    _, asked, result, *_ = turn(aftermath)
    change(aftermath, asked, result._replace(seq=asked.seq))
    change(aftermath, result, asked._replace(seq=result.seq))


def store_late_what_was_acknowledged_early(aftermath: Aftermath) -> None:
    """Swap two messages, of which one was acknowledged before the other was sent."""
    journal = aftermath.journal
    first, last = next(
        (first, last)
        for first in journal.added
        for last in journal.added
        if (first.job.user, first.job.session) == (last.job.user, last.job.session)
        and first.at < journal.issued[last.job.number].at
    )
    rows = aftermath.stored.by_seq()
    place = first.job.user, first.job.session
    early, late = rows[(*place, first.seqs[0])], rows[(*place, last.seqs[0])]
    change(aftermath, early, late._replace(seq=early.seq))
    change(aftermath, late, early._replace(seq=late.seq))


def give_a_note_to_somebody_else(aftermath: Aftermath) -> None:
    row = acknowledged_note(aftermath)
    change(aftermath, row, row._replace(user="somebody-else"))


def answer_again(aftermath: Aftermath) -> None:
    answer = turn(aftermath)[-1]
    change(aftermath, answer, answer, answer._replace(content="another", seq=answer.seq + 1))


def tell_another_answer(aftermath: Aftermath) -> None:
    output = aftermath.journal.outputs[0]
    aftermath.journal.outputs.append(replace(output, content="another"))


def run_a_tool_again(aftermath: Aftermath) -> None:
    names = next(names for names in aftermath.journal.begun.values() if CHARGE in names)
    names.append(CHARGE)


def leave_a_call_open(aftermath: Aftermath) -> None:
    change(aftermath, turn(aftermath)[2])


def miscount(aftermath: Aftermath) -> None:
    conversation = aftermath.stored.conversations[0]
    aftermath.stored.conversations[0] = conversation._replace(
        message_count=conversation.message_count + 1
    )


def leave_a_run_running(aftermath: Aftermath) -> None:
    aftermath.stored.runs[0] = aftermath.stored.runs[0]._replace(status="running")


def tear_a_batch(aftermath: Aftermath) -> None:
    added = next(
        added
        for added in aftermath.journal.added
        if len(added.seqs) > 1 and kind_of(added.job.session) in (NOTES, MIXED)
    )
    row = aftermath.stored.by_seq()[added.job.user, added.job.session, added.seqs[1]]
    change(aftermath, row)


def refuse_what_is_stored(aftermath: Aftermath) -> None:
    added = aftermath.journal.added[0]
    refused = Refused(added.job, "StoreUnavailableError", "", added.at)
    aftermath.journal.refused.append(refused)


def tell_of_a_failure(aftermath: Aftermath) -> None:
    run_id = turn(aftermath)[0].run_id
    issued = aftermath.journal.issued.values()
    job = next(one.job for one in issued if one.job.run_id == run_id and one.job.kind == "run")
    aftermath.journal.refused.append(Refused(job, "RunFailedError", "", 0.0))


def raise_what_nobody_expects(aftermath: Aftermath) -> None:
    job = next(iter(aftermath.journal.issued.values())).job
    aftermath.journal.refused.append(Refused(job, "KeyError", "'x'", 0.0))


@pytest.mark.parametrize(
    "kind, tamper",
    [
        (LOST, forget_a_note),
        (LOST, forget_a_step),
        (DUPLICATED, store_a_note_twice),
        (DUPLICATED, store_a_step_twice),
        (REORDERED, swap_two_steps),
        (REORDERED, store_late_what_was_acknowledged_early),
        (CROSS_TENANT, give_a_note_to_somebody_else),
        (TWICE, answer_again),
        (TWICE, tell_another_answer),
        (TOOL_TWICE, run_a_tool_again),
        (INVALID, leave_a_call_open),
        (COUNTERS, miscount),
        (RUNNING, leave_a_run_running),
        (TORN, tear_a_batch),
        (REFUSED, refuse_what_is_stored),
        (CONTRADICTED, tell_of_a_failure),
        (ERROR, raise_what_nobody_expects),
    ],
)
def test_the_verdict_finds_what_is_wrong(kind: str, tamper: Callable[[Aftermath], None]) -> None:
    aftermath = deepcopy(aftermath_of("sqlite"))
    tamper(aftermath)
    verdict = judge(aftermath)
    assert kind in {fault.kind for fault in verdict.faults}
    assert f"{kind}: " in "\n".join(report(aftermath, verdict))
    assert not verdict.is_good


def test_a_storm_in_which_little_happened_proves_nothing() -> None:
    aftermath = aftermath_of("sqlite")
    longer = replace(aftermath, options=replace(aftermath.options, seconds=SECONDS * 1000))
    verdict = judge(longer)
    assert not verdict.faults
    assert any(line.startswith("acknowledged runs: ") for line in verdict.shortfalls)
    assert not verdict.is_good


@pytest.fixture
def temporary_folder() -> Iterator[Path]:
    """A folder that the server's user reaches too."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_an_interrupted_storm_leaves_no_process_and_no_file(temporary_folder: Path) -> None:
    words = ["-m", "tests.chaos", "--database", "postgresql", "--processes", "1"]
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(temporary_folder)},
        start_new_session=True,
    ) as chaos:
        assert chaos.stdout is not None
        lines = [chaos.stdout.readline() for _ in range(2)]
        assert lines[1].endswith("0 errors\n"), lines
        assert list(temporary_folder.iterdir())
        chaos.send_signal(signal.SIGINT)
        _, errors = chaos.communicate()
    assert (chaos.returncode, errors) == (130, "")
    assert list(temporary_folder.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(chaos.pid, 0)
