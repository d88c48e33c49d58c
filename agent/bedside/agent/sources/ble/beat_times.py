"""When heart beats were, from the intervals between them and the arrival of the message that told of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_TOLERANCE_NS: Final = 2_000_000_000
"""A chain of beats that is farther from the arrival begins anew: beats are missing, or a link was slow."""


class BeatTimes:
    """Chains beats, so that the distance of two of them is the interval that the device measured."""

    def __init__(self, not_before_ns: int = 0) -> None:
        """Prepare; no beat is before `not_before_ns`."""
        self._last_ns = not_before_ns

    def of(self, intervals_s: Iterable[float], end_ns: int) -> list[int]:
        """Time of the beat that ends each interval: strictly ascending, the last about `end_ns`."""
        spans_ns = [round(interval_s * 1e9) for interval_s in intervals_s]
        counted_back_ns = end_ns - sum(spans_ns)
        at_ns = self._last_ns
        if not abs(counted_back_ns - at_ns) <= _TOLERANCE_NS:
            at_ns = max(at_ns, counted_back_ns)
        times = []
        for span_ns in spans_ns:
            at_ns += max(span_ns, 1)
            times.append(at_ns)
        self._last_ns = at_ns
        return times
