"""Let it storm over a database, and tell whether everything that was promised was kept.

    python -m tests.chaos --minutes 5 --database postgresql

Exit code 0 says yes, 1 no, 2 that the command was wrong, 130 that it was interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import suppress
from random import SystemRandom

from tests.chaos.report import report
from tests.chaos.storm import Options, storm
from tests.chaos.verdict import judge


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def options_of(words: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], required=True)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    given = parser.parse_args(words)
    if given.minutes <= 0 or given.processes < 1:
        parser.error("--minutes must be more than 0, --processes at least 1")
    return Options(
        database=given.database,
        seconds=given.minutes * 60,
        processes=given.processes,
        seed=given.seed,
    )


async def main(options: Options) -> int:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does it: what was started is cleared away.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    say(f"seed {options.seed}")
    aftermath = await storm(options, say)
    verdict = judge(aftermath)
    for line in report(aftermath, verdict):
        say(line)
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    exit_code = 130
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        exit_code = asyncio.run(main(options_of(sys.argv[1:])))
    sys.exit(exit_code)
