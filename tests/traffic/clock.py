"""A clock that runs as time does, and is turned ahead between what happens on it."""

from __future__ import annotations

import time


class TurnedClock:
    """Wall time and monotonic time are turned together, as if the seconds in between had passed.

    Attributes:
        turned_s: seconds by which it was turned ahead so far.
    """

    def __init__(self, begin_ns: int) -> None:
        """Let it be `begin_ns` now."""
        self._begin_ns = begin_ns
        self._began_s = time.monotonic()
        self.turned_s = 0.0

    def turn_to(self, at_s: float) -> None:
        """Let at least so many seconds have passed since its begin."""
        self.turned_s += max(0.0, at_s - self.monotonic_s())

    def now_ns(self) -> int:
        return self._begin_ns + round(self.monotonic_s() * 1e9)

    def monotonic_s(self) -> float:
        return time.monotonic() - self._began_s + self.turned_s
