"""Signal time for devices that send samples without times: counted from an arrival, so that jitter never shows."""

from __future__ import annotations

from typing import Final

TOLERANCE_S: Final = 0.5
"""Samples that arrive later than this after their turn come after a gap."""

_NS_PER_S: Final = 1_000_000_000


class NominalTime:
    """Places samples one after the other at their nominal rate.

    A device whose clock is fast runs ahead of ours until its next gap, for time never goes back; one whose clock is
    slow falls behind until it is later than the tolerance, which is a gap.

    Attributes:
        ahead_s: how far the newest sample lies after its arrival.
    """

    def __init__(self, rate_hz: float, not_before_ns: int = 0) -> None:
        """Prepare; nothing is placed before `not_before_ns`."""
        self._rate_hz = rate_hz
        self._zero_ns = not_before_ns
        self._samples = 0
        self._begun = False
        self.ahead_s = 0.0

    def place(self, samples: int, arrived_ns: int) -> tuple[int, bool]:
        """Time of the first of some samples, the last of which has just arrived; and whether a gap lies before it."""
        start_ns = self._end_ns
        late_ns = arrived_ns - round(samples * _NS_PER_S / self._rate_hz) - start_ns
        gap = not self._begun or late_ns > TOLERANCE_S * _NS_PER_S
        if gap:
            self._begun, self._samples = True, 0
            self._zero_ns = start_ns = max(start_ns, start_ns + late_ns)
        self._samples += samples
        self.ahead_s = (self._end_ns - arrived_ns) / _NS_PER_S
        return start_ns, gap

    def lose(self) -> None:
        """Samples are missing: the next ones are placed by their arrival."""
        self._begun = False

    @property
    def _end_ns(self) -> int:
        return self._zero_ns + round(self._samples * _NS_PER_S / self._rate_hz)


class MeasuredRate:
    """What the rate of a device really is, for who has to configure it."""

    _LEAST_NS: Final = 10 * _NS_PER_S

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Samples are missing: start over."""
        self._first_ns = self._samples = 0

    def take(self, samples: int, end_ns: int) -> float:
        """Samples per second up to `end_ns`; 0 in the first ten seconds."""
        if not self._first_ns:
            self._first_ns = end_ns
            return 0.0
        self._samples += samples
        span_ns = end_ns - self._first_ns
        return self._samples * _NS_PER_S / span_ns if span_ns >= self._LEAST_NS else 0.0
