"""Finds R peaks in one ECG lead, causally, sample by sample.

The lead is band-passed, differentiated, squared and integrated over the width of a QRS complex. A peak of that energy
is a beat when it stands above a threshold between the medians of recent beats and recent noise, is not within the
refractory period of a larger one, and is not a T wave, whose slope is less than half of its beat's. When no beat has
come for one and a half usual intervals, the largest peak above half the threshold since then is taken after all;
after four seconds without any the thresholds are learnt anew, as from the first two seconds.

Invariant: the same samples give the same beats, whatever the blocks.

Sources: Pan & Tompkins, A real-time QRS detection algorithm, IEEE Trans Biomed Eng 32(3), 1985; Hamilton & Tompkins,
Quantitative investigation of QRS detection rules, IEEE Trans Biomed Eng 33(12), 1986 (medians of eight).
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bedside.core.signal.butterworth import butterworth, group_delay
from bedside.ondevice.windows.sections import SectionFilter

BAND_HZ: Final = (5.0, 18.0)
"""Where a QRS complex has its energy, and P, T, breath and mains have little."""
QRS_S: Final = 0.15
REFRACTORY_S: Final = 0.2
T_WAVE_S: Final = 0.36
"""A peak so soon after a beat may be its T wave."""
LEARNING_S: Final = 2.0
SEARCH_BACK: Final = 1.5
"""Usual intervals without a beat after which smaller peaks are looked at."""
MAX_INTERVAL_S: Final = 2.0
"""A longer interval counts as this much in the usual one: 30 beats a minute."""
MAX_SEARCH_S: Final = 4.0
"""Without a beat for so long, the thresholds are learnt anew."""
THRESHOLD: Final = 0.2
"""Where the threshold lies between noise (0) and beats (1)."""
_FIRST_INTERVAL_S: Final = 0.8
_REMEMBERED: Final = 8
_SLOPE_SHARE: Final = 0.25
"""A T wave's largest squared slope against its beat's: half the slope."""


class _Peak(NamedTuple):
    """A local maximum of the energy: its sample, its value, and the largest squared slope in its QRS width."""

    sample: int
    energy: float
    slope: float


class RPeakDetector:
    """One lead of one run. Samples are counted from the first that is pushed."""

    def __init__(self, rate_hz: float) -> None:
        """Begin a run of `rate_hz` samples per second, at least 40."""
        sections = butterworth(2, rate_hz, low_hz=BAND_HZ[0], high_hz=BAND_HZ[1])
        self._band = SectionFilter(sections)
        self._rate_hz = rate_hz
        self._delay = round(group_delay(sections, 2 * math.pi * math.sqrt(math.prod(BAND_HZ)) / rate_hz))
        self._width = max(2, round(QRS_S * rate_hz))
        self._step = max(1, round(0.01 * rate_hz))
        self._refractory = round(REFRACTORY_S * rate_hz)
        self._learning = round(LEARNING_S * rate_hz)
        self._search = round(MAX_SEARCH_S * rate_hz)
        self._banded: list[float] = []
        self._slopes: list[float] = []
        self._energy: list[float] = []
        self._base = 0
        self._seen = 0
        self._signals: deque[float] = deque(maxlen=_REMEMBERED)
        self._noises: deque[float] = deque(maxlen=_REMEMBERED)
        self._intervals: deque[float] = deque(maxlen=_REMEMBERED)
        self._pending: _Peak | None = None
        self._passed: list[_Peak] = []
        self._last: _Peak | None = None
        self._without_since = 0

    @property
    def horizon(self) -> int:
        """No beat before this sample will be reported any more."""
        return max(0, self._seen - self._search - self._learning - self._width - self._delay)

    def push(self, samples: npt.NDArray[np.float64]) -> list[int]:
        """Take the next samples (n,); return the samples of the beats that they showed, ascending."""
        self._append(samples)
        end = self._base + len(self._energy)
        found: list[int] = []
        if not self._signals and end < self._learning:
            return found
        if not self._signals:
            self._learn(0)
        for index in range(self._seen, end):
            self._look(index, found)
        self._seen = end
        self._forget()
        return found

    def _append(self, samples: npt.NDArray[np.float64]) -> None:
        banded, slopes, width, step = self._banded, self._slopes, self._width, self._step
        for value in self._band.push(samples[:, np.newaxis])[:, 0].tolist():
            slope = value - banded[-step] if len(banded) >= step else 0.0
            banded.append(value)
            slopes.append(slope * slope)
            self._energy.append(math.fsum(slopes[-width:]))

    def _learn(self, first: int) -> None:
        """Set the thresholds from the energy of two seconds; a beat is in both of them, or in neither."""
        energy = self._energy[first - self._base : first - self._base + self._learning]
        half = len(energy) // 2
        self._signals.clear()
        self._signals.append(min(max(energy[:half]), max(energy[half:])))
        self._noises.clear()
        self._noises.append(math.fsum(energy) / len(energy) / 2)

    def _threshold(self) -> float:
        noise, signal = statistics.median(self._noises), statistics.median(self._signals)
        return noise + THRESHOLD * max(0.0, signal - noise)

    def _look(self, index: int, found: list[int]) -> None:
        """Consider the sample before `index` as a peak, and what waits for its refractory period."""
        at, energy = index - self._base, self._energy
        if at >= 2 and energy[at - 2] < energy[at - 1] >= energy[at]:
            pending = self._pending
            if pending is None or energy[at - 1] > pending.energy:
                steepest = max(self._slopes[max(0, at - 1 - self._width) : at])
                self._pending = _Peak(index - 1, energy[at - 1], steepest)
        if self._pending is not None and index - self._pending.sample > self._refractory:
            peak, self._pending = self._pending, None
            self._classify(peak, found)
        if index - self._without_since > self._refractory:
            self._search_back(index, found)

    def _classify(self, peak: _Peak, found: list[int]) -> None:
        if not self._is_t_wave(peak):
            if peak.energy > self._threshold():
                self._accept(peak, found)
                return
            self._passed.append(peak)
        self._noises.append(peak.energy)

    def _is_t_wave(self, peak: _Peak) -> bool:
        last = self._last
        soon = last is not None and peak.sample - last.sample < T_WAVE_S * self._rate_hz
        return soon and last is not None and peak.slope < _SLOPE_SHARE * last.slope

    def _search_back(self, index: int, found: list[int]) -> None:
        usual = statistics.median(self._intervals) if self._intervals else _FIRST_INTERVAL_S * self._rate_hz
        waited = index - self._without_since - self._refractory
        if waited > SEARCH_BACK * usual and self._passed:
            best = max(self._passed, key=lambda peak: peak.energy)
            if best.energy > self._threshold() / 2:
                self._accept(best, found)
                return
        if waited > self._search:
            self._learn(index - self._learning)
            self._without_since = index
            self._passed.clear()

    def _accept(self, peak: _Peak, found: list[int]) -> None:
        if self._last is not None:
            self._intervals.append(min(peak.sample - self._last.sample, MAX_INTERVAL_S * self._rate_hz))
        self._last = peak
        self._without_since = peak.sample
        self._signals.append(peak.energy)
        self._passed = [passed for passed in self._passed if passed.sample > peak.sample]
        found.append(self._place(peak))

    def _place(self, peak: _Peak) -> int:
        """The largest deflection of the band within the QRS that ends with the peak's energy."""
        end = peak.sample - self._base + 1
        first = max(0, end - self._width - self._step)
        largest = max(range(first, end), key=lambda at: abs(self._banded[at]))
        return max(0, self._base + largest - self._delay)

    def _forget(self) -> None:
        spent = self.horizon - self._base
        if spent > self._rate_hz:
            del self._banded[:spent], self._slopes[:spent], self._energy[:spent]
            self._base += spent
