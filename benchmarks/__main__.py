"""How fast the store is, beside other libraries and beside plain database code.

    python -m benchmarks setup      installs the other libraries, each group in its environment
    python -m benchmarks run        measures everything and writes docs/benchmarks.md
    python -m benchmarks report     writes docs/benchmarks.md again, from the figures of the last run

Exit code 0 says that all went well, 1 that something could not be measured or read wrong messages,
2 that the command was wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.catalogue import DATABASES
from benchmarks.environments import CHECKOUT, MissingEnvironmentError, python_of, set_up
from benchmarks.plan import SIZES, workloads
from benchmarks.report import write_report
from benchmarks.results import Results
from benchmarks.run import Options, Run
from benchmarks.site import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALL_SIZES: Final = tuple(SIZES)


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def parser() -> argparse.ArgumentParser:
    """Return what reads the command's words."""
    whole = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="install the other libraries")
    run = commands.add_parser("run", help="measure, and write the report")
    run.add_argument("--workloads", type=_words, help="such as W1,W2; all if not given")
    run.add_argument(
        "--drivers", type=_words, help="names or roles (ours, peer, floor); all if not given"
    )
    run.add_argument("--databases", type=_words, default=DATABASES)
    run.add_argument("--repetitions", type=int, help="3 if not given, 1 with --quick")
    run.add_argument("--sizes", type=_words, default=_ALL_SIZES, help='of W4, such as "1 million"')
    run.add_argument("--quick", action="store_true", help="small counts, to see that it works")
    run.add_argument(
        "--beside", type=Path, default=Path(tempfile.gettempdir()), help="where the databases lie"
    )
    report = commands.add_parser("report", help="write the report from the last run's figures")
    for command in (run, report):
        command.add_argument("--out", type=Path, default=CHECKOUT / "docs")
    return whole


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def run(given: argparse.Namespace) -> int:
    """Measure what was asked for; keep the figures of the workloads that were not."""
    sizes = given.sizes if not given.quick else _ALL_SIZES[:1]
    chosen = tuple(
        w
        for w in workloads(quick=given.quick, sizes=sizes)
        if given.workloads is None or w.key in given.workloads
    )
    repetitions = given.repetitions or (1 if given.quick else 3)
    options = Options(chosen, given.databases, given.drivers, repetitions)
    for environment in {e.environment for w in chosen for e in options.entries(w)}:
        python_of(environment)
    results = Results(given.out / "benchmarks" / "results.json")
    with Site.open(given.beside) as site:
        measuring = Run(site, options, say)
        for workload in chosen:
            results.put(workload, measuring.workload(workload), site, options.repetitions)
            results.save()
    write_report(results, given.out)
    say(f"written: {given.out / 'benchmarks.md'}")
    return 1 if results.failures(chosen) else 0


def main(words: Sequence[str]) -> int:
    """Do what the words say."""
    given = parser().parse_args(words)
    try:
        if given.command == "setup":
            set_up(say)
            return 0
        if given.command == "report":
            write_report(Results(given.out / "benchmarks" / "results.json"), given.out)
            return 0
        return run(given)
    except MissingEnvironmentError as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
