"""Where windows lie in a run: one after the other at a hop, or round each beat."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple, Protocol

from bedside.core.bundle.preprocessing import Beat
from bedside.ondevice.windows.resampler import Float64
from bedside.ondevice.windows.rpeaks import RPeakDetector

MEAN_OF: Final = 10
"""Intervals in the mean that a beat's interval is compared with."""
FIRST_RR_S: Final = 0.8
"""Stands for the interval before a run's first beat, which nobody knows: 75 beats a minute, with ratio 1."""


class Cut(NamedTuple):
    """A window that can be cut now: its first sample, and the constant channels that follow the signal's."""

    first: int
    extra: tuple[float, ...]


class Cuts(Protocol):
    """Decides where a run is cut.

    Attributes:
        needed: first sample that a later window may need.
        unsettled: windows left out because the run had not settled when they began.
    """

    needed: int
    unsettled: int

    def push(self, samples: Float64, end: int) -> list[Cut]:
        """Take the next samples before `filter`; `end` is the number of the sample after them."""


class Sliding:
    """A window every `hop` samples (see `Cuts`)."""

    def __init__(self, length: int, hop: int, first: int, usable: int) -> None:
        self._length = length
        self._hop = hop
        self._usable = usable
        self.needed = first
        self.unsettled = 0

    def push(self, samples: Float64, end: int) -> list[Cut]:
        """See `Cuts`."""
        cuts: list[Cut] = []
        while self.needed + self._length <= end:
            if self.needed >= self._usable:
                cuts.append(Cut(self.needed, ()))
            else:
                self.unsettled += 1
            self.needed += self._hop
        return cuts


class Beats:
    """A window round every R peak of one channel (see `Cuts`)."""

    def __init__(self, beat: Beat, rate_hz: float, first: int, usable: int) -> None:
        self._beat = beat
        self._rate_hz = rate_hz
        self._first = first
        self._usable = usable
        self._detector = RPeakDetector(rate_hz)
        self._open: deque[Cut] = deque()
        self._last: int | None = None
        self._intervals_s: deque[float] = deque(maxlen=MEAN_OF)
        self.needed = first
        self.unsettled = 0

    def push(self, samples: Float64, end: int) -> list[Cut]:
        """See `Cuts`."""
        for beat in self._detector.push(samples[:, self._beat.channel]):
            self._note(self._first + beat)
        cuts: list[Cut] = []
        length = self._beat.before + self._beat.after
        while self._open and self._open[0].first + length <= end:
            cut = self._open.popleft()
            if cut.first >= self._usable:
                cuts.append(cut)
            else:
                self.unsettled += 1
        earliest = self._first + self._detector.horizon - self._beat.before
        self.needed = max(self._first, min(earliest, self._open[0].first) if self._open else earliest)
        return cuts

    def _note(self, index: int) -> None:
        rr_s, ratio, change = FIRST_RR_S, 1.0, 1.0
        if self._last is not None:
            rr_s = (index - self._last) / self._rate_hz
            if self._intervals_s:
                ratio = rr_s * len(self._intervals_s) / sum(self._intervals_s)
                change = rr_s / self._intervals_s[-1]
            self._intervals_s.append(rr_s)
        self._last = index
        extra = (rr_s, ratio) if self._beat.rr else ()
        self._open.append(Cut(index - self._beat.before, (*extra, change) if self._beat.rr_change else extra))
