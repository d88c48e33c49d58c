"""The stages that run over a stream, for one run of it: resampling, then filtering, at the model's rate."""

from __future__ import annotations

import math
from typing import NamedTuple

from bedside.core.bundle.manifest import WindowSpec
from bedside.ondevice.windows.resampler import Float64, Resampler, ratio_of
from bedside.ondevice.windows.sections import SectionFilter


class Staged(NamedTuple):
    """The next samples (n, channels), before and after `filter`."""

    before: Float64
    after: Float64


class StreamStages:
    """From physical samples at the stream's rate to those that windows are cut from.

    Attributes:
        rate_hz: of what comes out.
        first: number, from the run's beginning and at that rate, of the first sample that comes out.
        usable: number of the first one for which the filter has settled.
    """

    def __init__(self, spec: WindowSpec, stream_hz: float) -> None:
        self._resampler: Resampler | None = None
        self._filter: SectionFilter | None = None
        self.rate_hz, self.first = stream_hz, 0
        if spec.resample is not None:
            self.rate_hz = spec.rate_hz
            ratio = ratio_of(stream_hz, spec.rate_hz)
            if ratio != 1:
                self._resampler = Resampler(ratio, spec.resample.half_width, spec.resample.beta)
                self.first = self._resampler.first
        self.usable = self.first
        if spec.filter is not None:
            self._filter = SectionFilter(spec.filter.sections)
            self.usable += math.ceil(spec.filter.settle_s * spec.rate_hz)

    def push(self, physical: Float64) -> Staged:
        """Take the next (samples, channels) of the run."""
        before = self._resampler.push(physical) if self._resampler is not None else physical
        return Staged(before, self._filter.push(before) if self._filter is not None else before)
