"""How far the clock of a sender is off, from when it says that it sent and when that arrived; and times that cannot be.

Nothing arrives before it was sent: of all that arrived lately, what was delayed least tells the clocks apart best, and
the estimate is late by that least delay. A sender's clock drifts and is set, so that only the newest pairs count.

Source: the minimum filter of Paxson, "On calibrating measurements of packet transit times" (SIGMETRICS 1998), one way.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MAX_AHEAD_NS: Final = 300_000_000_000
"""Nanoseconds by which a time may lie ahead of its arrival: clocks that nobody looks after are off by minutes."""
AHEAD_FOR_NS: Final = 60_000_000_000
"""Nanoseconds of nothing but times that lie further ahead, after which the sender's clock is ahead."""
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
        self._ahead = ClockAhead()

    def observe(self, sent_ns: int, arrived_ns: int) -> None:
        """Take one pair, in nanoseconds since 1970 on the sender's clock and on this machine's."""
        self._delays_ns.append(arrived_ns - sent_ns)
        self._ahead.see(sent_ns, arrived_ns)

    @property
    def offset_ns(self) -> int:
        """What to add to a time of the sender; 0 before the first pair."""
        return min(self._delays_ns, default=0)

    @property
    def ahead_s(self) -> float:
        """How far the sender's clock is ahead of this machine's, seconds; what a source's gauge tells."""
        return -self.offset_ns / 1e9

    @property
    def stays_ahead_ns(self) -> int:
        """See `ClockAhead.ns`: what `plausible_time` takes."""
        return self._ahead.ns

    def here_ns(self, sent_ns: int) -> int:
        """A time of the sender on this machine's clock."""
        return sent_ns + self.offset_ns


class ClockAhead:
    """Whether a sender's clock is ahead of this machine's and stays there, or one time that it said cannot be.

    A time far ahead would end the session that is open, and all that is true would lie behind it. So one is not
    believed; where all that a sender says lies far ahead for a minute, its clock is ahead, or the one here is behind,
    and it is taken.
    """

    def __init__(self) -> None:
        """Begin with a sender that has said nothing."""
        self._since_ns: int | None = None
        self._least_ns = 0
        self._newest_ns = 0

    def see(self, time_ns: int, arrived_ns: int) -> None:
        """Take note of a time that the sender said, and of when it arrived, in nanoseconds since 1970."""
        ahead_ns = time_ns - arrived_ns
        self._newest_ns = arrived_ns
        if ahead_ns <= MAX_AHEAD_NS:
            self._since_ns = None
        elif self._since_ns is None or ahead_ns > self._least_ns + MAX_AHEAD_NS or arrived_ns < self._since_ns:
            self._since_ns, self._least_ns = arrived_ns, ahead_ns
        else:
            self._least_ns = min(self._least_ns, ahead_ns)

    @property
    def ns(self) -> int:
        """How far all that was said for a minute and longer was ahead at least, in nanoseconds; 0 = it was not."""
        lasts = self._since_ns is not None and self._newest_ns - self._since_ns >= AHEAD_FOR_NS
        return self._least_ns if lasts else 0

    def takes(self, time_ns: int, arrived_ns: int) -> bool:
        """Take note of a time, and say whether something can have been measured then."""
        self.see(time_ns, arrived_ns)
        return plausible_time(time_ns, arrived_ns, self.ns)


def plausible_time(time_ns: int, arrived_ns: int, ahead_ns: int = 0) -> bool:
    """Whether something can have been measured then: after 1999, and no more than five minutes after it arrived.

    Args:
        time_ns: of the measurement, nanoseconds since 1970.
        arrived_ns: when it arrived here. A clock here that is itself before 2000 is not set, and judges nothing.
        ahead_ns: how far the sender's clock is known to be ahead, see `ClockAhead`.
    """
    return time_ns >= FIRST_NS and (arrived_ns < FIRST_NS or time_ns <= arrived_ns + ahead_ns + MAX_AHEAD_NS)
