"""The device's half of the codec: clip, rotate, subsample, round, lay out.

Law: for one rotation seed, `decode_sum(sum of encode(x_i) mod 2^w)` is the sum of the clipped x_i, within one step
per device in every rotated coordinate, and exactly for counts. Where a share of the coordinates is sent, it is that
sum on average over seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from bedside.core.codec.layout import Layout, Segment, SegmentKind
from bedside.core.codec.rotation import GROUP_WORDS, FloatArray, Signs, block_shape, rotate_blocks
from bedside.core.codec.rounding import FRACTION, Rounder
from bedside.core.codec.subsample import Chooser
from bedside.core.codec.update import CountArray, TensorUpdate, UpdateSource
from bedside.core.securesum.ring import Words, word_dtype

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
    """Lay tensors and counts out as one vector of ring words: `encode_pieces` of a `TensorUpdate`, joined.

    Returns:
        `layout.words` words, each at most `segment.largest_word`.

    Raises:
        ProtocolError: `ring-overflow`, or as `TensorUpdate`.
    """
    update = TensorUpdate(tensors, counts, layout)
    words = np.empty(layout.words, word_dtype(word_bits))
    at = 0
    for piece in encode_pieces(update, layout, rotation_seed, rounding_key, word_bits=word_bits):
        words[at : at + piece.size] = piece
        at += piece.size
    return words


def encode_pieces(
    update: UpdateSource, layout: Layout, rotation_seed: bytes, rounding_key: bytes, *, word_bits: int
) -> Iterator[Words]:
    """The vector of an update from its first word to its last, in memory of one piece.

    Args:
        update: what to encode; longer segments are scaled down to the clip.
        layout: the plan's layout.
        rotation_seed: 32 bytes, the same for every device of the cohort; the coordinates sent follow from it too.
        rounding_key: 32 secret bytes, fresh per update.
        word_bits: w of the ring.

    Yields:
        Consecutive words, at most `GROUP_WORDS`, in a buffer that the receiver may overwrite and that the next piece
        uses again.

    Raises:
        ProtocolError: `ring-overflow`.
    """
    layout.check_fits(1, word_bits)
    words = np.empty(min(GROUP_WORDS, layout.words), word_dtype(word_bits))
    for index, segment in enumerate(layout.segments):
        if segment.kind is SegmentKind.COUNT:
            yield from _count_pieces(update.counts(index), words)
            continue
        rounder = Rounder(rounding_key, index, segment.half_levels)
        for part in _sent_pieces(update, index, segment, rotation_seed):
            out = words[: part.size]
            rounder.round(part, out)
            yield out


def clip_factor(norm: float, segment: Segment) -> float:
    """The factor, at most 1, that brings a segment of that norm inside its L2 bound."""
    return 1.0 if norm <= segment.clip else segment.clip / norm * (1.0 - _CLIP_MARGIN)


def _sent_pieces(update: UpdateSource, index: int, segment: Segment, rotation_seed: bytes) -> Iterator[FloatArray]:
    """All coordinates in order; of a subsampled segment, those that are sent."""
    if not segment.subsample_e32:
        yield from _scaled_pieces(update, index, segment, rotation_seed)
        return
    chooser = Chooser(segment, rotation_seed, index)
    seen = 0
    for part in _scaled_pieces(update, index, segment, rotation_seed):
        chosen = chooser.up_to(seen + part.size)
        if chosen.size:
            yield part[chosen - seen]
        seen += part.size


def _scaled_pieces(update: UpdateSource, index: int, segment: Segment, rotation_seed: bytes) -> Iterator[FloatArray]:
    """Clipped, in fixed-point parts of a step, and rotated where the segment asks for it."""
    factor = np.float32(clip_factor(update.norm(index), segment) / segment.step * FRACTION)
    if not segment.rotation_block:
        for part in update.pieces(index):
            part *= factor
            yield part
        return
    rows, columns = block_shape(segment.rotation_block)
    signs = Signs(rotation_seed, index)
    spare = np.empty(0, np.float32)
    for part in update.pieces(index):
        part *= factor
        part *= signs.next(part.size)
        blocks = part.reshape(-1, rows, columns)
        if spare.size < part.size:
            spare = np.empty(part.size, np.float32)
        rotate_blocks(blocks, spare[: part.size].reshape(blocks.shape))
        yield part


def _count_pieces(counts: CountArray, words: Words) -> Iterator[Words]:
    for start in range(0, counts.size, words.size):
        part = counts[start : start + words.size]
        out = words[: part.size]
        np.copyto(out, part, casting="unsafe")
        yield out
