"""The device's half of the codec: clip, rotate, subsample, round, lay out.

Law: for one rotation seed, `decode_sum(sum of encode(x_i) mod 2^w)` is the sum of the clipped x_i, within one step
per device in every rotated coordinate, and exactly for counts. Where a share of the coordinates is sent, it is that
sum on average over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.codec.layout import Layout, Segment, SegmentKind
from bedside.core.codec.rotation import (
    GROUP_WORDS,
    FloatArray,
    Signs,
    block_shape,
    blocks_per_group,
    rotate_blocks,
)
from bedside.core.codec.rounding import FRACTION, Rounder
from bedside.core.codec.subsample import Chooser
from bedside.core.errors import ProtocolError
from bedside.core.securesum.ring import Words, word_dtype

CountArray = npt.NDArray[np.int64]

_LARGEST_NORM: Final = 1e18
"""An update beyond this has diverged, and its clip factor would leave the normal range of float32."""
_CLIP_MARGIN: Final = 1e-6
"""Share by which a clipped vector stays inside its bound, so that float32 rounding cannot carry it out."""


def encode(
    tensors: Mapping[str, FloatArray],
    counts: Mapping[str, int | CountArray],
    layout: Layout,
    rotation_seed: bytes,
    rounding_key: bytes,
    *,
    word_bits: int,
) -> Words:
    """Lay tensors and counts out as one vector of ring words.

    Args:
        tensors: float32 arrays by name, in the shapes of the layout; longer segments are scaled down to the clip.
        counts: whole numbers 0..cap by name; arrays where the slot has a shape.
        layout: the plan's layout.
        rotation_seed: 32 bytes, the same for every device of the cohort; the coordinates sent follow from it too.
        rounding_key: 32 secret bytes, fresh per update.
        word_bits: w of the ring.

    Returns:
        `layout.words` words, each at most `segment.largest_word`.

    Raises:
        ProtocolError: `ring-overflow`, `tensor-mismatch`, `delta-not-finite` or `count-out-of-range`.
    """
    layout.check_fits(1, word_bits)
    _check_names({*tensors, *counts}, layout)
    words = np.empty(layout.words, word_dtype(word_bits))
    for index, (segment, place) in enumerate(layout.placed()):
        if segment.kind is SegmentKind.COUNT:
            words[place] = _flat_counts(segment, counts)
        else:
            flat = _flat_values(segment, tensors)
            factor = clip_factor(flat, segment) / segment.step * FRACTION
            rounder = Rounder(rounding_key, index, segment.half_levels)
            chooser = Chooser(segment, rotation_seed, index) if segment.subsample_e32 else None
            sink = _Sink(rounder, words[place], chooser)
            if segment.rotation_block:
                _encode_rotated(flat, segment.rotation_block, factor, Signs(rotation_seed, index), sink)
            else:
                _encode_plain(flat, factor, sink)
    return words


class _Sink:
    """Rounds the coordinates of one segment as they come, in order; of a subsampled one, those that are sent."""

    def __init__(self, rounder: Rounder, out: Words, chooser: Chooser | None) -> None:
        self._rounder = rounder
        self._out = out
        self._chooser = chooser
        self._seen = 0
        self._written = 0

    def take(self, parts: FloatArray) -> None:
        """Round the next coordinates, at most `GROUP_WORDS`; `parts` may be overwritten."""
        first, self._seen = self._seen, self._seen + parts.size
        if self._chooser is not None:
            parts = parts[self._chooser.up_to(self._seen) - first]
        start, self._written = self._written, self._written + parts.size
        self._rounder.round(parts, self._out[start : self._written])


def clip_factor(flat: FloatArray, segment: Segment) -> float:
    """The factor, at most 1, that brings a segment inside its L2 bound.

    Raises:
        ProtocolError: `delta-not-finite` when a value is NaN or infinite, or the norm is above 1e18.
    """
    square = 0.0
    for start in range(0, flat.size, GROUP_WORDS):
        wide = flat[start : start + GROUP_WORDS].astype(np.float64)
        square += float(np.dot(wide, wide))
    norm = math.sqrt(square) if math.isfinite(square) else math.inf
    if norm > _LARGEST_NORM:
        raise ProtocolError(
            "delta-not-finite",
            f"segment {segment.name!r} has diverged: it is not a vector of finite norm",
            remedy="lower the learning rate; the delta of this round is dropped",
        )
    return 1.0 if norm <= segment.clip else segment.clip / norm * (1.0 - _CLIP_MARGIN)


def _encode_rotated(flat: FloatArray, block: int, factor: float, signs: Signs, sink: _Sink) -> None:
    rows, columns = block_shape(block)
    runs = flat.reshape(rows, -1, columns)
    group = blocks_per_group(block)
    work = np.empty((min(group, runs.shape[1]), rows, columns), np.float32)
    spare = np.empty_like(work)
    for start in range(0, runs.shape[1], group):
        part = runs[:, start : start + group, :].transpose(1, 0, 2)
        blocks = work[: len(part)]
        np.multiply(part, np.float32(factor), out=blocks)
        blocks *= signs.next(blocks.size).reshape(blocks.shape)
        rotate_blocks(blocks, spare[: len(part)])
        sink.take(blocks.reshape(-1))


def _encode_plain(flat: FloatArray, factor: float, sink: _Sink) -> None:
    for start in range(0, flat.size, GROUP_WORDS):
        sink.take(flat[start : start + GROUP_WORDS] * np.float32(factor))


def _check_names(given: set[str], layout: Layout) -> None:
    wanted = {slot.name for segment in layout.segments for slot in segment.slots}
    if given != wanted:
        raise ProtocolError(
            "tensor-mismatch",
            f"the layout and the update differ in {len(given ^ wanted)} names, first {min(given ^ wanted)!r}",
        )


def _flat_values(segment: Segment, tensors: Mapping[str, FloatArray]) -> FloatArray:
    """The segment's tensors in a row, padded with zeros to whole blocks; a view where nothing is to be joined."""
    parts = []
    for slot in segment.slots:
        tensor = tensors.get(slot.name)
        if tensor is None or tensor.shape != slot.shape or tensor.dtype != np.float32:
            shape = "x".join(map(str, slot.shape)) or "scalar"
            raise ProtocolError("tensor-mismatch", f"tensor {slot.name!r} is not a float32 of shape {shape}")
        parts.append(tensor.reshape(-1))
    if len(parts) == 1 and segment.full_words == segment.length:
        return parts[0]
    flat = np.zeros(segment.full_words, np.float32)
    np.concatenate(parts, out=flat[: segment.length])
    return flat


def _flat_counts(segment: Segment, counts: Mapping[str, int | CountArray]) -> CountArray:
    parts = []
    for slot in segment.slots:
        count = np.asarray(counts.get(slot.name))
        if count.dtype.kind not in "iu" or count.shape != slot.shape:
            raise ProtocolError("tensor-mismatch", f"count {slot.name!r} is not of whole numbers in its shape")
        if count.min() < 0 or count.max() > segment.cap:
            raise ProtocolError("count-out-of-range", f"count {slot.name!r} is not within 0 and {segment.cap}")
        parts.append(count.reshape(-1).astype(np.int64))
    return np.concatenate(parts)
