"""The audit: what is wrong with the stored rows, whoever wrote them and whatever was told."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

from agno_sql.agent.context import idempotency_key
from agno_sql.memory.window import window
from agno_sql.testing.wire_rules import violation
from tests.agent.models import as_wire
from tests.chaos.fault import (
    COUNTERS,
    CROSS_TENANT,
    DUPLICATED,
    INVALID,
    REORDERED,
    RUNNING,
    TORN,
    TWICE,
    Fault,
)
from tests.chaos.script import MIXED, NOTES, SMALL, kind_of, script_of, steps_of, tags_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.chaos.stored import ConversationRow, MessageRow, RunRow, Stored


def audit(stored: Stored) -> Iterator[Fault]:
    """Yield each fault."""
    messages = stored.by_conversation()
    conversations = {(row.user, row.session): row for row in stored.conversations}
    for user, session in messages.keys() - conversations.keys():
        yield Fault(COUNTERS, f"{user}, {session}: messages without a conversation")
    for key, conversation in conversations.items():
        yield from _counters(conversation, messages.get(key, []))
    for rows in messages.values():
        yield from _content(rows)
        yield from _validity(rows)
    turns: defaultdict[tuple[str, str, str], list[MessageRow]] = defaultdict(list)
    for row in stored.messages:
        if row.run_id is not None:
            turns[row.user, row.session, row.run_id].append(row)
    runs = {run.key: run for run in stored.runs}
    for run_key in turns.keys() - runs.keys():
        yield Fault(COUNTERS, f"{run_key}: messages of a run that is not known", run_key[2])
    for run_key, run in runs.items():
        yield from _turn(run, turns[run_key])
        yield from _ending(run, turns[run_key])


def _counters(row: ConversationRow, messages: Sequence[MessageRow]) -> Iterator[Fault]:
    place = f"{row.user}, {row.session}"
    seqs = [message.seq for message in messages]
    if row.message_count != len(seqs):
        yield Fault(COUNTERS, f"{place}: message_count {row.message_count}, but {len(seqs)} rows")
    if seqs != list(range(row.first_seq, row.last_seq + 1)):
        yield Fault(COUNTERS, f"{place}: {row.first_seq} to {row.last_seq}, but rows {seqs}")
    if row.run_id is not None:
        yield Fault(RUNNING, f"{place}: still held by {row.run_id}", row.run_id)


def _content(rows: Sequence[MessageRow]) -> Iterator[Fault]:
    for row in rows:
        place = f"{row.user}, {row.session}, seq {row.seq}"
        tags = tags_of(row.content)
        if any(tag[:2] != (row.user, row.session) for tag in tags):
            yield Fault(CROSS_TENANT, f"{place}: {row.content}", row.run_id or "")
        if row.run_id and not row.run_id.startswith(f"{row.user}.{row.session}."):
            yield Fault(CROSS_TENANT, f"{place}: of run {row.run_id}", row.run_id)
        if not tags and row.role != "tool":
            yield Fault(TORN, f"{place}: {row.role} {row.content!r}", row.run_id or "")
    for content, times in Counter(row.content for row in rows if tags_of(row.content)).items():
        if times > 1:
            yield Fault(DUPLICATED, f"{rows[0].user}, {rows[0].session}: {times} x {content}")


def _validity(rows: Sequence[MessageRow]) -> Iterator[Fault]:
    kind = kind_of(rows[0].session)
    if kind == NOTES:
        return
    messages = [row.message() for row in rows]
    # Plain messages come between a call and its result: the window moves them.
    broken = violation(as_wire(window(messages) if kind == MIXED else messages))
    if broken:
        yield Fault(INVALID, f"{rows[0].user}, {rows[0].session}: {broken}")
    blocks = [run for run, _ in groupby(row.run_id for row in rows if row.run_id is not None)]
    for run_id, times in Counter(blocks).items():
        if times > 1:
            yield Fault(REORDERED, f"another run wrote in the middle of {run_id}", run_id)


def _turn(run: RunRow, rows: Sequence[MessageRow]) -> Iterator[Fault]:
    """Compare the steps of a run, in the order of their seq, with its script."""
    expected = steps_of(script_of(run.run_id))
    steps = [-1 if row.run_step is None else row.run_step for row in rows]
    for step, times in Counter(steps).items():
        if times > 1:
            yield Fault(DUPLICATED, f"{run.key}: step {step} is stored {times} times", run.run_id)
    known = sorted(set(steps))
    if not known or known[0] < 0 or known[-1] >= len(expected):
        yield Fault(TORN, f"{run.key}: its steps are {steps}", run.run_id)
        return
    first = known[0] if kind_of(run.session) == SMALL else 0  # the oldest may be pruned
    if known != list(range(first, known[-1] + 1)):
        yield Fault(TORN, f"{run.key}: its steps are {steps}", run.run_id)
    phases = [expected[step].phase for step in steps]
    if phases != sorted(phases):
        yield Fault(REORDERED, f"{run.key}: its steps are stored as {steps}", run.run_id)
    for row, step in zip(rows, steps, strict=True):
        wanted = expected[step]
        key = idempotency_key(*run.key, round_number=wanted.round, position=wanted.position)
        is_of_step = row.role == wanted.role and (
            row.role != "tool"
            or not tags_of(row.content)
            or f"{run.run_id} {wanted.tool} {key} " in row.content
        )
        if not is_of_step or any(tag[2].split()[0] != run.run_id for tag in tags_of(row.content)):
            yield Fault(REORDERED, f"{run.key}: step {step} is {row}", run.run_id)


def _ending(run: RunRow, rows: Sequence[MessageRow]) -> Iterator[Fault]:
    answers = [row for row in rows if row.is_answer]
    if run.status == "running":
        yield Fault(RUNNING, f"{run.key} in attempt {run.attempt}", run.run_id)
    if len(answers) > 1:
        yield Fault(TWICE, f"{run.key}: answered by {answers}", run.run_id)
    if run.status == "completed":
        if not answers or answers[-1].seq != run.last_seq or rows[-1] != answers[-1]:
            yield Fault(TORN, f"{run.key} is completed without an answer at its end", run.run_id)
        spent = (
            sum(row.input_tokens or 0 for row in rows),
            sum(row.output_tokens or 0 for row in rows),
        )
        if kind_of(run.session) != SMALL and spent != (run.input_tokens, run.output_tokens):
            yield Fault(COUNTERS, f"{run.key}: its messages cost {spent}, it {run}", run.run_id)
    elif answers:
        yield Fault(TORN, f"{run.key} is {run.status} with the answer {answers}", run.run_id)
