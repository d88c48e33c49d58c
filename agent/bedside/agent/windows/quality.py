"""Data quality of one stream over the last five minutes of its signal.

Shares are of values (samples x channels). `missing`: gaps against the nominal rate, and values that are not numbers.
`flat`: values of a channel that has stood still for more than a second. `saturated`: at the limits of the integers they
are stored in, or in a block that its source flagged. `out_of_range` and drift need the bundle's reference.

Blocks are gathered and looked at once a second, so that the cost is a few array operations per stream and second.

Source of the drift measure: Siddiqi, Credit Risk Scorecards, 2006 (population stability index; 0.1 and 0.25 are its
usual marks for some and for much drift).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.preprocessing import ChannelReference
from bedside.core.samples import Block, Quality
from bedside.ondevice.windows.part import NS_PER_S, end_ns, offset_ns
from bedside.proto.v1 import local_pb2

BUCKET_NS: Final = 10 * NS_PER_S
BUCKETS: Final = 30
"""Of ten seconds each: five minutes."""
FLAT_S: Final = 1.0
MIN_DRIFT_S: Final = 60.0
"""Less signal than this says nothing about a distribution."""
_SMALLEST_SHARE: Final = 1e-4
"""Stands for an empty bin, whose logarithm would be endless."""
_MILLION: Final = 1_000_000

_MOST_VALUES: Final = 1 << 20
"""Gathered of a stream of any rate before they are looked at: 12 channels at 87 kHz."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StreamQuality:
    """Shares from 0 to 1.

    Attributes:
        drift_psi: population stability index of the channel that moved most; None without a reference, or before there
            was a minute of signal.
    """

    missing: float
    flat: float
    saturated: float
    out_of_range: float
    drift_psi: float | None

    def message(self) -> local_pb2.StreamQuality:
        """As the local API has it."""
        return local_pb2.StreamQuality(
            missing_e6=round(self.missing * _MILLION),
            flat_e6=round(self.flat * _MILLION),
            saturated_e6=round(self.saturated * _MILLION),
            out_of_range_e6=round(self.out_of_range * _MILLION),
            drift_psi_e3=None if self.drift_psi is None else round(self.drift_psi * 1_000),
        )


@dataclass(slots=True)
class _Bucket:
    """Counts of ten seconds, in values; `bins` holds one row per channel of the reference."""

    missing: int = 0
    values: int = 0
    flat: int = 0
    saturated: int = 0
    out_of_range: int = 0
    seconds: float = 0.0
    bins: list[Counts] = field(default_factory=list)


class QualityMonitor:
    """Watches one stream. Gaps between sessions count as missing, as any other gap."""

    def __init__(self, reference: Sequence[ChannelReference] = (), pick: Sequence[int] = ()) -> None:
        """Watch a stream; `reference` describes the channels `pick`, or all of them in their order."""
        self._reference = tuple(reference)
        self._edges = [np.array(channel.edges, np.float64) for channel in reference]
        self._low = np.array([channel.low for channel in reference], np.float64)
        self._high = np.array([channel.high for channel in reference], np.float64)
        self._pick = list(pick) or list(range(len(reference)))
        self._buckets: dict[int, _Bucket] = {}
        self._gathered: list[Block] = []
        self._values = 0
        self._end_ns: int | None = None
        self._last: npt.NDArray[np.generic] | None = None
        self._standing: Counts = np.zeros(0, np.int64)

    def observe(self, block: Block) -> None:
        """Take the next block."""
        begun = self._gathered[0] if self._gathered else block
        if _form(block) != _form(begun):
            self._look()
            begun = block
        if self._end_ns is not None and abs(block.start_ns - self._end_ns) > offset_ns(1, block.rate_hz):
            self._look()
            self._note_gap(self._end_ns, block)
        self._gathered.append(block)
        self._values += block.values.size
        self._end_ns = end_ns(block)
        if self._values >= min(block.rate_hz * block.values.shape[1], _MOST_VALUES):
            self._look()

    def summary(self) -> StreamQuality:
        """The last five minutes of the signal."""
        self._look()
        buckets = self._buckets.values()
        missing, values = sum(bucket.missing for bucket in buckets), sum(bucket.values for bucket in buckets)
        there = max(1, values)
        return StreamQuality(
            missing=missing / max(1, missing + values),
            flat=sum(bucket.flat for bucket in buckets) / there,
            saturated=sum(bucket.saturated for bucket in buckets) / there,
            out_of_range=sum(bucket.out_of_range for bucket in buckets) / there,
            drift_psi=self._drift(),
        )

    def _drift(self) -> float | None:
        counted = [bucket for bucket in self._buckets.values() if bucket.bins]
        if not counted or sum(bucket.seconds for bucket in counted) < MIN_DRIFT_S:
            return None
        totals = [np.sum([bucket.bins[at] for bucket in counted], axis=0) for at in range(len(self._reference))]
        return max(
            stability_index(channel.shares, total) for channel, total in zip(self._reference, totals, strict=True)
        )

    def _note_gap(self, before_ns: int, block: Block) -> None:
        """Count what is missing from `before_ns` to `block`, in the buckets in which it is missing."""
        self._last = None
        if block.start_ns < before_ns - BUCKETS * BUCKET_NS:  # the clock was set back: what was seen is of another time
            self._buckets.clear()
        first = max(before_ns // BUCKET_NS, block.start_ns // BUCKET_NS - BUCKETS)
        borders = [number * BUCKET_NS for number in range(first, block.start_ns // BUCKET_NS + 1)]
        for start, end in pairwise([max(borders[0], before_ns), *borders[1:], block.start_ns] if borders else []):
            missing = round((end - start) * block.rate_hz / NS_PER_S) * block.values.shape[1]
            self._bucket(start).missing += missing

    def _bucket(self, time_ns: int) -> _Bucket:
        number = time_ns // BUCKET_NS
        if number not in self._buckets:
            self._buckets[number] = _Bucket()
            newest = max(self._buckets)
            for old in [other for other in self._buckets if other <= newest - BUCKETS]:
                del self._buckets[old]
        return self._buckets.get(number) or _Bucket()  # late, it is counted nowhere

    def _look(self) -> None:
        """Count what was gathered."""
        blocks, self._gathered, self._values = self._gathered, [], 0
        if not blocks:
            return
        values = np.concatenate([block.values for block in blocks])
        bucket = self._bucket(blocks[0].start_ns)
        numbers = np.isfinite(values)  # what is none is missing, and counted nowhere else
        there = int(np.count_nonzero(numbers))
        bucket.values += there
        bucket.missing += values.size - there
        bucket.seconds += len(values) / blocks[0].rate_hz
        bucket.flat += int(np.count_nonzero(self._flat(values, blocks[0].rate_hz) & numbers))
        saturated = np.repeat(
            [bool(block.quality & Quality.SATURATED) for block in blocks], [len(block.values) for block in blocks]
        )[:, np.newaxis]
        if values.dtype.kind == "i":
            limits = np.iinfo(values.dtype)
            saturated = saturated | (values == limits.min) | (values == limits.max)
        bucket.saturated += int(np.count_nonzero(saturated & numbers))
        if self._reference and values.shape[1] > max(self._pick):
            self._compare(bucket, values[:, self._pick].astype(np.float64) * blocks[0].scale)

    def _compare(self, bucket: _Bucket, physical: npt.NDArray[np.float64]) -> None:
        outside = (physical < self._low) | (physical > self._high)
        bucket.out_of_range += int(np.count_nonzero(outside & np.isfinite(physical)))
        if not bucket.bins:
            bucket.bins = [np.zeros(len(edges) + 1, np.int64) for edges in self._edges]
        for at, edges in enumerate(self._edges):
            column = physical[:, at]
            places = np.searchsorted(edges, column[np.isfinite(column)], side="right")
            bucket.bins[at] += np.bincount(places, minlength=len(edges) + 1)

    def _flat(self, values: npt.NDArray[np.generic], rate_hz: float) -> npt.NDArray[np.bool_]:
        """Which values are equal to all those of more than a second before them."""
        if self._last is None or len(self._last) != values.shape[1]:
            self._last, self._standing = values[0], np.zeros(values.shape[1], np.int64)
        same = np.concatenate([self._last[np.newaxis], values])
        changed = same[1:] != same[:-1]
        rows = np.arange(len(values), dtype=np.int64)[:, np.newaxis]
        since = np.maximum.accumulate(np.where(changed, rows, -self._standing), axis=0)
        self._last, self._standing = values[-1], len(values) - since[-1]
        flat: npt.NDArray[np.bool_] = rows - since > FLAT_S * rate_hz
        return flat


def stability_index(expected: Sequence[float], counts: Counts) -> float:
    """Population stability index of `counts` per bin against the `expected` shares."""
    reference = np.maximum(np.array(expected, np.float64), _SMALLEST_SHARE)
    actual = np.maximum(counts / max(1, int(counts.sum())), _SMALLEST_SHARE)
    return float(((actual - reference) * np.log(actual / reference)).sum())


def _form(block: Block) -> tuple[object, ...]:
    return block.rate_hz, block.values.shape[1], block.values.dtype, block.scale
