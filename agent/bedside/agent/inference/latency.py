"""How long a stage takes: a histogram of fixed buckets on a logarithmic scale, so that memory does not grow.

A bucket is a quarter of an octave wide: a percentile is told at most 19 % too high, and the maximum exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

Stage = Literal["cut", "wait", "infer", "decide"]
"""`cut`: arrival to window; `wait`: in the queue; `infer`: one model run; `decide`: arrival to decision."""

STAGES: Final[tuple[Stage, ...]] = ("cut", "wait", "infer", "decide")
_PER_OCTAVE: Final = 4
_OCTAVES: Final = 32
"""From one microsecond to more than an hour; what lies outside is counted in the first or last bucket."""
_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class LatencyFacts:
    """One stage since the process started; microseconds."""

    stage: Stage
    count: int
    p50_us: int
    p99_us: int
    max_us: int


class Histogram:
    """Latencies of one stage."""

    def __init__(self) -> None:
        self._buckets = [0] * (_PER_OCTAVE * _OCTAVES)
        self._count = 0
        self._max_us = 0.0

    def add(self, latency_s: float) -> None:
        """Count one latency; a negative one counts as none."""
        us = max(0.0, latency_s * _US_PER_S)
        place = math.ceil(math.log2(us) * _PER_OCTAVE) if us > 1 else 0
        self._buckets[min(place, len(self._buckets) - 1)] += 1
        self._count += 1
        self._max_us = max(self._max_us, us)

    def quantile_us(self, share: float) -> int:
        """The upper end of the bucket that holds the given share of all latencies, never above the largest one."""
        needed, seen = math.ceil(share * self._count), 0
        for place, counted in enumerate(self._buckets):
            seen += counted
            if counted and seen >= needed:
                return math.ceil(min(2 ** (place / _PER_OCTAVE), self._max_us))
        return 0

    def facts(self, stage: Stage) -> LatencyFacts:
        """What status shows."""
        return LatencyFacts(stage, self._count, self.quantile_us(0.5), self.quantile_us(0.99), math.ceil(self._max_us))
