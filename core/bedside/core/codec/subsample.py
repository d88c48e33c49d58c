"""Shared-seed subsampling: which coordinates of a segment are sent, the same for everybody in the cohort.

A segment of n words that keeps m is cut into m strata of neighbours, [k n // m, (k + 1) n // m) for k = 0..m - 1, and
one coordinate of each is drawn from the rotation seed. Every coordinate of a stratum of s words is thus sent with
probability 1 / s and counts s times when the sum is opened, so that the opened vector is right on average over
seeds. The strata fix the number of words, and keep the chosen coordinates in their order.

The seed follows from H and all round keys: neither the coordinator nor a device can choose the coordinates, and a
device that sent others would only add noise to its own part of the sum, inside the norm bound.

Price: the error of one round is (s - 1) times the squared norm of the mean update, and since all devices send the same
coordinates it does not shrink with their number.

Source: Konecny et al., Federated Learning: Strategies for Improving Communication Efficiency, 2016, section 3
(random mask); Cochran, Sampling Techniques, section 5.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.codec.keystream import KeyStream
from bedside.core.codec.layout import Segment
from bedside.core.codec.rotation import GROUP_WORDS, FloatArray

Places = npt.NDArray[np.int64]

_PURPOSE: Final = b"bedside-sample"
_DRAW_BYTES: Final = 4
_DRAW_BITS: Final = 32


class Chooser:
    """The coordinates that one segment sends, in order, a group of words at a time.

    A draw is 32 little-endian bits r of the stream; the place in a stratum of s words is r s >> 32, uniform within
    s / 2^32.

    Args:
        segment: a VALUE segment that is subsampled.
        rotation_seed: 32 bytes, the same for every device of the cohort.
        index: of the segment in its layout.
    """

    def __init__(self, segment: Segment, rotation_seed: bytes, index: int) -> None:
        self._full, self._kept = segment.full_words, segment.words
        self._stream = KeyStream(rotation_seed, _PURPOSE, index, (GROUP_WORDS + 1) * _DRAW_BYTES)
        self._drawn = 0
        self._waiting: Places = np.empty(0, np.int64)

    def up_to(self, end: int) -> Places:
        """The places below `end` that were not given yet, ascending; `end` grows by at most `GROUP_WORDS` a call."""
        count = -(-min(end, self._full) * self._kept // self._full) - self._drawn
        edges = self.edges(self._drawn, count)
        draws = self._stream.read(count * _DRAW_BYTES).view("<u4").astype(np.int64)
        self._drawn += count
        places = np.concatenate([self._waiting, edges[:-1] + (draws * np.diff(edges) >> _DRAW_BITS)])
        split = int(np.searchsorted(places, end))
        self._waiting = places[split:]
        return places[:split]

    def edges(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Edges of `count` strata from `first` on, one more than strata."""
        return np.arange(first, first + count + 1, dtype=np.int64) * self._full // self._kept


def spread(kept: FloatArray, segment: Segment, chooser: Chooser) -> FloatArray:
    """Put what was sent in its places, each times the size of its stratum; zero elsewhere.

    Args:
        kept: float32, shape (`segment.words`,).
        segment: the segment.
        chooser: a fresh one of this segment.

    Returns:
        float32, shape (`segment.full_words`,).
    """
    flat = np.zeros(segment.full_words, np.float32)
    done = 0
    for end in range(GROUP_WORDS, flat.size + GROUP_WORDS, GROUP_WORDS):
        places = chooser.up_to(end)
        sizes = np.diff(chooser.edges(done, places.size)).astype(np.float32)
        flat[places] = kept[done : done + places.size] * sizes
        done += places.size
    return flat
