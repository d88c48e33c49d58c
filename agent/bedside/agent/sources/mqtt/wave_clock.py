"""Places stretches of one waveform on one time line, where each comes with its sender's time, which jitters.

Invariant: time never goes back, and no sample is placed twice: what lies before the end of what was placed is passed
over. So a stretch that comes again, after a crash of either side, is recognised by its time alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bedside.ondevice.windows.part import offset_ns

_JITTER_NS: Final = (2_000_000, 50_000_000)
"""Nanoseconds by which the time that a sender gives may be off: senders round, and their rate is not quite what it is
called. A quarter of a stretch is never exceeded, so that a stretch that is missing shows."""


class Placed(NamedTuple):
    """Where a stretch goes.

    Attributes:
        start_ns: of the first sample that is kept.
        skip: samples before it that are not.
        gap: whether samples are missing before it.
    """

    start_ns: int
    skip: int
    gap: bool


class WaveClock:
    """The time line of one stream."""

    def __init__(self, end_ns: int) -> None:
        """Go on.

        Args:
            end_ns: end of what is there already; 0 = nothing is.
        """
        self._end_ns = end_ns

    @property
    def end_ns(self) -> int:
        """End of what was placed."""
        return self._end_ns

    def place(self, start_ns: int, samples: int, rate_hz: float) -> Placed:
        """Place a stretch.

        Args:
            start_ns: time of its first sample, as its sender says.
            samples: how many, per channel.
            rate_hz: per second and channel.
        """
        ahead_ns = start_ns - self._end_ns
        gap, skip = False, 0
        least_ns, most_ns = _JITTER_NS
        jitter_ns = max(least_ns, min(most_ns, offset_ns(samples, rate_hz) // 4), offset_ns(1, rate_hz) // 2)
        if self._end_ns and abs(ahead_ns) <= jitter_ns:
            start_ns = self._end_ns
        elif ahead_ns < 0:
            skip = min(samples, _samples_in(-ahead_ns, rate_hz))
            start_ns += offset_ns(skip, rate_hz)
        else:
            gap = self._end_ns > 0
        if skip < samples:
            self._end_ns = start_ns + offset_ns(samples - skip, rate_hz)
        return Placed(start_ns, skip, gap)


def _samples_in(span_ns: int, rate_hz: float) -> int:
    """Samples that begin within a span, that at its beginning included."""
    return -(-span_ns * max(1, round(rate_hz * 1000)) // 1_000_000_000_000)
