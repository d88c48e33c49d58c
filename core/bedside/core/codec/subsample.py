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
from bedside.core.codec.rotation import FloatArray

Places = npt.NDArray[np.int32]

_PURPOSE: Final = b"bedside-sample"
_CHUNK_STRATA: Final = 1 << 14
_DRAW_BYTES: Final = 4
_DRAW_BITS: Final = 32


def chosen_places(segment: Segment, rotation_seed: bytes, index: int) -> Places:
    """The coordinates that a segment sends, ascending, shape (`segment.words`,).

    A draw is 32 little-endian bits r of the stream; the place in a stratum of s words is r s >> 32, uniform within
    s / 2^32.

    Args:
        segment: a VALUE segment that is subsampled.
        rotation_seed: 32 bytes, the same for every device of the cohort.
        index: of the segment in its layout.
    """
    stream = KeyStream(rotation_seed, _PURPOSE, index, _CHUNK_STRATA * _DRAW_BYTES)
    places = np.empty(segment.words, np.int32)
    for start in range(0, places.size, _CHUNK_STRATA):
        part = places[start : start + _CHUNK_STRATA]
        edges = _edges(segment, start, part.size)
        draws = stream.read(part.size * _DRAW_BYTES).view("<u4").astype(np.int64)
        part[...] = edges[:-1] + (draws * np.diff(edges) >> _DRAW_BITS)
    return places


def spread(kept: FloatArray, places: Places, segment: Segment) -> FloatArray:
    """Put what was sent in its places, each times the size of its stratum; zero elsewhere.

    Args:
        kept: float32, shape (`segment.words`,).
        places: what `chosen_places` drew.
        segment: the segment.

    Returns:
        float32, shape (`segment.full_words`,).
    """
    flat = np.zeros(segment.full_words, np.float32)
    for start in range(0, places.size, _CHUNK_STRATA):
        part = places[start : start + _CHUNK_STRATA]
        sizes = np.diff(_edges(segment, start, part.size)).astype(np.float32)
        flat[part] = kept[start : start + part.size] * sizes
    return flat


def _edges(segment: Segment, first: int, count: int) -> npt.NDArray[np.int64]:
    """Edges of the strata `first` .. `first + count - 1`, one more than strata."""
    return np.arange(first, first + count + 1, dtype=np.int64) * segment.full_words // segment.words
