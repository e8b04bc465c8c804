"""One process that measures one driver at one job; its parent tells it when.

    python -m benchmarks.worker '{"driver": "module:Class", "job": "module:function", …}'

Its last line is what it measured, or the error that ended it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import traceback
from typing import Any

from benchmarks.driver import Place, load
from benchmarks.stage import Stage, tell


async def work(order: dict[str, Any]) -> dict[str, Any]:
    """Do the job that *order* describes; return what was measured."""
    place, stage = Place(**order["place"]), Stage(order["most_seconds"], order["repetition"])
    job = load(order["job"])
    async with load(order["driver"]).open(place) as driver:
        extra = await job(driver, order["options"], stage)
        durability = await driver.durability()
    return {**stage.result(), **extra, "durability": durability}


def main(words: list[str]) -> int:
    """Work, and tell what came of it."""
    # Some libraries keep several files open for each conversation.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        result = asyncio.run(work(json.loads(words[0])))
    except Exception as error:  # noqa: BLE001  (whatever it is, the parent shows it)
        traceback.print_exc()
        tell(failed=f"{type(error).__name__}: {error}"[:2000])
        return 1
    tell(result=result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
