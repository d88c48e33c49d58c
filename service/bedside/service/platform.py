"""Where the process meets the machine: the only module that reads a clock or the entropy pool."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Final

SET_BACK_NS: Final = 3_600_000_000_000
"""A clock that is set back further than this was wrong before, and is followed: an hour."""


class SystemClock:
    """The machine's clocks; wall time does not go back within the process, unless the clock is set back by far."""

    def __init__(self) -> None:
        self._last_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch; not less than an earlier answer, but for one of a clock that was wrong."""
        wall_ns = time.time_ns()
        self._last_ns = max(self._last_ns, wall_ns) if self._last_ns - wall_ns < SET_BACK_NS else wall_ns
        return self._last_ns

    def monotonic_s(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()


class SystemEntropy:
    """The kernel's generator."""

    def token_bytes(self, count: int) -> bytes:
        """Return `count` bytes of the kernel's entropy pool."""
        return os.urandom(count)


def local_minute(now_s: int) -> int:
    """Minutes after midnight at a moment, in the time zone that this machine is set to."""
    local = datetime.fromtimestamp(now_s, UTC).astimezone()
    return 60 * local.hour + local.minute
