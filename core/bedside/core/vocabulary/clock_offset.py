"""How far the clock of a sender is off, from when it says that it sent and when that arrived; and times that cannot be.

Nothing arrives before it was sent: of all that arrived lately, what was delayed least tells the clocks apart best, and
the estimate is late by that least delay. A sender's clock drifts and is set, so that only the newest pairs count.

Source: the minimum filter of Paxson, "On calibrating measurements of packet transit times" (SIGMETRICS 1998), one way.
"""

from __future__ import annotations

from collections import deque
from typing import Final

DAY_NS: Final = 86_400_000_000_000
FIRST_NS: Final = 946_684_800_000_000_000
"""2000-01-01T00:00:00Z in nanoseconds since 1970: what devices without a set clock say lies before."""

MAX_PAIRS: Final = 64
"""Pairs that count: at one message in 15 seconds, the last quarter of an hour."""


class ClockOffset:
    """Estimates how much to add to a sender's times, so that they are on this machine's clock."""

    def __init__(self, pairs: int = MAX_PAIRS) -> None:
        """Prepare.

        Args:
            pairs: of (sent, arrived) that count, newest first to stay.

        Raises:
            ValueError: when that is none.
        """
        if pairs < 1:
            raise ValueError("an offset needs one pair at least")
        self._delays_ns: deque[int] = deque(maxlen=pairs)

    def observe(self, sent_ns: int, arrived_ns: int) -> None:
        """Take one pair, in nanoseconds since 1970 on the sender's clock and on this machine's."""
        self._delays_ns.append(arrived_ns - sent_ns)

    @property
    def offset_ns(self) -> int:
        """What to add to a time of the sender; 0 before the first pair."""
        return min(self._delays_ns, default=0)

    @property
    def ahead_s(self) -> float:
        """How far the sender's clock is ahead of this machine's, seconds; what a source's gauge tells."""
        return -self.offset_ns / 1e9

    def here_ns(self, sent_ns: int) -> int:
        """A time of the sender on this machine's clock."""
        return sent_ns + self.offset_ns


def plausible_time(time_ns: int, arrived_ns: int) -> bool:
    """Whether something can have been measured then: after 1999, and no more than a day after it arrived.

    Args:
        time_ns: of the measurement, nanoseconds since 1970.
        arrived_ns: when it arrived here. A clock here that is itself before 2000 is not set, and judges nothing.
    """
    return time_ns >= FIRST_NS and (arrived_ns < FIRST_NS or time_ns <= arrived_ns + DAY_NS)
