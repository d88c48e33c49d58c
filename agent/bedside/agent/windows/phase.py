"""Where the grid lies that a window of the past was cut on.

A window's time is exact to a nanosecond, and so tells which sample of its run a cutter may begin at to find the same
window again. What it cannot tell is the nominal time of the samples that are read, where their stamps waver: that is
counted from the run's beginning, for which no part needs to be opened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Session
from bedside.core.bundle.manifest import WindowSpec
from bedside.ondevice.windows.part import NS_PER_S, Part, Place, offset_ns
from bedside.ondevice.windows.resampler import ratio_of
from bedside.ondevice.windows.stages import StreamStages

ROUNDING_NS: Final = 3
"""Times of one sample that were counted from different beginnings differ by no more."""


@dataclass(frozen=True, slots=True)
class Phase:
    """How a run, read from its middle, fits the grid of a window.

    Attributes:
        first_sample: a cutter that begins here, or a whole number of periods later, cuts the window.
        off_ns: how much later the first sample would have to lie for the grid to fit to the nanosecond.
    """

    first_sample: int
    off_ns: Fraction

    @property
    def fits(self) -> bool:
        """Whether the time of the first sample was the nominal one."""
        return abs(self.off_ns) <= ROUNDING_NS


def phase_of(spec: WindowSpec, window_ns: int, first_ns: int, rate_hz: float) -> Phase:
    """The phase nearest to samples that begin at `first_ns`, of a window that begins at `window_ns`.

    Sample R of the stream lies at R up / down of the model's samples. Windows of a cutter that begins there lie at
    R up / down + first + m hop, and one of them is the given one where R up = ticks, modulo hop down.
    """
    ratio = ratio_of(rate_hz, spec.rate_hz) if spec.resample is not None else Fraction(1)
    stages = StreamStages(spec, rate_hz)
    per_ns = Fraction(round(stages.rate_hz * 1000), 1000 * NS_PER_S)
    up, down = ratio.numerator, ratio.denominator
    period = down if spec.beat is not None else spec.hop * down
    step = math.gcd(up, period)
    ideal = ((window_ns - first_ns) * per_ns - stages.first) * down
    turns = round(ideal / step)
    around = period // step
    return Phase(turns * pow(up // step, -1, around) % around, (ideal - turns * step) / down / per_ns)


def nominal_ns(reader: BufferReader, session: Session, part: Part) -> int:
    """The time of a part's first sample, counted from the beginning of its run as far as that is left.

    Raises:
        StoreError: `store-read`.
    """
    begin: Place | None = None
    start_ns = samples = 0
    for place in reader.places(part.stream, session.session, part.start_ns + 1):
        expected_ns = start_ns + offset_ns(samples, place.rate_hz)
        sample_ns = offset_ns(1, place.rate_hz)
        if begin is None or place.form != begin.form or abs(place.start_ns - expected_ns) * 2 > sample_ns:
            begin, start_ns, samples = place, place.start_ns, 0
            if place.start_ns == session.raw_ns:
                start_ns = session.anchor_ns
                mhz = max(1, round(place.rate_hz * 1000))
                samples = round(Fraction((place.start_ns - start_ns) * mhz, 1000 * NS_PER_S))
        if place.start_ns >= part.start_ns:
            break
        samples += place.samples
    return start_ns + offset_ns(samples, part.rate_hz)
