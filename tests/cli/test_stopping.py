from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from agno_sql.cli.stopping import run_until_stopped


def test_ctrl_c_wakes_a_loop_that_waits_even_if_another_thread_gets_the_signal() -> None:
    cleaned_up: list[str] = []

    async def wait_for_ever() -> None:
        def interrupt_here() -> None:
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        try:
            # The signal comes when the loop has nothing else to do than to wait.
            asyncio.get_running_loop().call_soon(threading.Thread(target=interrupt_here).start)
            await asyncio.Event().wait()
        finally:
            cleaned_up.append("yes")

    async def answer() -> str:
        return "the runner still works"

    with asyncio.Runner() as runner:
        with pytest.raises(KeyboardInterrupt):
            run_until_stopped(runner, wait_for_ever())
        assert cleaned_up == ["yes"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert run_until_stopped(runner, answer()) == "the runner still works"


def test_an_error_passes_unchanged() -> None:
    async def fail() -> None:
        raise LookupError("mine")

    with asyncio.Runner() as runner, pytest.raises(LookupError, match="mine"):
        run_until_stopped(runner, fail())
