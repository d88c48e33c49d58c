"""Waiting for what cannot announce itself: another process's file, socket or end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from bedside.core.clock import Clock
from bedside.core.errors import UnavailableError

LOOK_S: Final = 0.1


async def wait_until(
    holds: Callable[[], bool], clock: Clock, what: str, timeout_s: float, *, look_s: float = LOOK_S
) -> None:
    """Return as soon as `holds()`; it may raise to end the waiting.

    Raises:
        UnavailableError: `demo-waited`, naming `what`.
    """
    deadline_s = clock.monotonic_s() + timeout_s
    while not holds():
        if clock.monotonic_s() > deadline_s:
            raise UnavailableError(
                "demo-waited", f"waited {timeout_s:.0f} s in vain for {what}", remedy="look at the run's logs folder"
            )
        await asyncio.sleep(look_s)


async def comes_true(holds: Callable[[], bool], clock: Clock, timeout_s: float) -> bool:
    """Whether `holds()` within so many seconds."""
    try:
        await wait_until(holds, clock, "", timeout_s)
    except UnavailableError:
        return False
    return True
