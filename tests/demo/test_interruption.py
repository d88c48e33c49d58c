"""`kill` and a closed terminal end a run where it waits, and not between the start of a child and its first note."""

import asyncio
import os
import signal

import pytest

from bedside.demo.interruption import interruptible


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_loop_is_left_where_it_waits(number: signal.Signals) -> None:
    seen: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        seen.append("noted")  # an exception out of nowhere would come before
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("cleaned up")

    with pytest.raises(KeyboardInterrupt), interruptible():
        asyncio.run(work())
    assert seen == ["noted", "cleaned up"]


def test_without_a_loop_it_is_an_exception_and_afterwards_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_where_ctrl_c_is_ignored_kill_still_ends_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
