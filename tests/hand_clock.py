"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
from typing import Final

T0: Final = 1_700_000_000_000_000_000
"""Where the wall time of a `HandClock` begins: nanoseconds since 1970."""


class HandClock:
    """Both clocks of a process.

    Attributes:
        at_s: seconds since `T0`, and the monotonic time.
    """

    def __init__(self, at_s: float = 0.0) -> None:
        self.at_s = at_s

    def now_ns(self) -> int:
        return T0 + round(self.at_s * 1e9)

    def monotonic_s(self) -> float:
        return self.at_s

    async def sleep(self, delay_s: float) -> None:
        """Move on by so much, and let others have their turn."""
        self.at_s += delay_s
        await asyncio.sleep(0)
