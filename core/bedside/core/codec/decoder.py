"""The opened sum back to tensors and counts, after a check that honest devices could have made it.

A word of the sum is read relative to the middle of its honest range (n T for values, n cap / 2 for counts) as a
signed number of w bits: noise may carry a sum below zero, which wraps, and comes back right.

Everything here is integer arithmetic, or float32 element by element in a fixed order: the same words give the same
bits on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from bedside.core.codec.layout import Layout, Segment, SegmentKind
from bedside.core.codec.rotation import FloatArray, Signs, unrotate
from bedside.core.codec.subsample import Chooser, spread
from bedside.core.codec.update import CountArray
from bedside.core.errors import ProtocolError
from bedside.core.securesum.ring import Words, word_dtype, word_mask

_CHUNK_WORDS: Final = 1 << 16
_LIMB_BITS: Final = 16
_Item = TypeVar("_Item", np.float32, np.int64)


class DecodedSum(NamedTuple):
    """What a sum of updates says.

    Attributes:
        tensors: float32 sums by name, in the shapes of the layout.
        counts: int64 sums by name, in the shapes of the layout (an array without axes for a lone count).
    """

    tensors: dict[str, FloatArray]
    counts: dict[str, CountArray]


def decode_sum(words: Words, layout: Layout, rotation_seed: bytes, contributors: int, *, word_bits: int) -> DecodedSum:
    """Read the sum of `contributors` encoded vectors.

    Args:
        words: the unmasked sum modulo 2^w, shape (`layout.words`,).
        layout: the plan's layout.
        rotation_seed: the 32 bytes that the devices rotated and chose coordinates with.
        contributors: n, devices in the sum.
        word_bits: w of the ring.

    Returns:
        Sums, not means, of tensors and counts.

    Raises:
        ProtocolError: `ring-overflow`, or `wrong-vector-length`.
    """
    _check_words(words, layout, contributors, word_bits)
    decoded = DecodedSum({}, {})
    for index, (segment, place) in enumerate(layout.placed()):
        if segment.kind is SegmentKind.COUNT:
            middle = _count_middle(segment, contributors)
            _split(segment, _centred(words[place], middle, word_bits) + middle, decoded.counts)
        else:
            flat = _steps(words[place], contributors * segment.half_levels, word_bits)
            flat *= np.float32(segment.step)
            if segment.subsample_e32:
                flat = spread(flat, segment, Chooser(segment, rotation_seed, index))
            if segment.rotation_block:
                flat = unrotate(flat, segment.rotation_block, Signs(rotation_seed, index))
            _split(segment, flat, decoded.tensors)
    return decoded


def check_sum(
    words: Words, layout: Layout, contributors: int, *, word_bits: int, noise_tails: Sequence[int] = ()
) -> None:
    """Refuse a sum that no set of honest devices, with that noise, can have made.

    Per VALUE segment: ||X|| <= n C + (n + noise) sqrt(words) steps, since every device is clipped to C and rounding
    moves a coordinate by less than a step; rotation keeps the norm and subsampling can only shorten it, so the words
    are measured as they are, in exact integers. Per count: 0 - noise <= word <= n cap + noise.

    Args:
        words: the unmasked sum modulo 2^w.
        layout: the plan's layout.
        contributors: n, devices in the sum.
        word_bits: w of the ring.
        noise_tails: per segment, the distance between the lowest and the highest noise of all trustees together on one
            word; empty without noise.

    Raises:
        ProtocolError: `sum-out-of-bounds`, `ring-overflow` or `wrong-vector-length`.
    """
    _check_words(words, layout, contributors, word_bits, noise_tails)
    tails = noise_tails or [0] * len(layout.segments)
    for (segment, place), noise_tail in zip(layout.placed(), tails, strict=True):
        noise = noise_tail // 2
        if segment.kind is SegmentKind.COUNT:
            middle = _count_middle(segment, contributors)
            counts = _centred(words[place], middle, word_bits) + middle
            if counts.min() < -noise or counts.max() > contributors * segment.cap + noise:
                raise _out_of_bounds(segment, f"a count is not within 0 and {contributors * segment.cap}")
            continue
        clip_steps = math.ceil(segment.clip / segment.step * contributors)
        limit = clip_steps + (contributors + noise) * (math.isqrt(segment.words) + 1)
        square = _square_norm(words[place], contributors * segment.half_levels, word_bits)
        if square > limit * limit:
            raise _out_of_bounds(segment, f"its norm is {math.isqrt(square)} steps, over {limit}")


def _check_words(
    words: Words, layout: Layout, contributors: int, word_bits: int, noise_tails: Sequence[int] = ()
) -> None:
    layout.check_fits(contributors, word_bits, noise_tails)
    if contributors < 1 or words.shape != (layout.words,) or words.dtype != word_dtype(word_bits):
        raise ProtocolError(
            "wrong-vector-length",
            f"a sum of {contributors} vectors with {words.size} words does not match {layout.words} words",
        )


def _count_middle(segment: Segment, contributors: int) -> int:
    """Rounded up: a signed number of w bits reaches one further down than up."""
    return (contributors * segment.cap + 1) // 2


def _centred(words: Words, middle: int, word_bits: int) -> CountArray:
    """Signed distance of every word from `middle`, in -2^(w-1)..2^(w-1) - 1."""
    distance = words.astype(np.int64)
    distance += (1 << (word_bits - 1)) - middle
    distance &= word_mask(word_bits)
    distance -= 1 << (word_bits - 1)
    return distance


def _steps(words: Words, middle: int, word_bits: int) -> FloatArray:
    """`_centred` as float32, a chunk at a time so that the wide integers stay small."""
    steps = np.empty(words.size, np.float32)
    for start in range(0, words.size, _CHUNK_WORDS):
        part = words[start : start + _CHUNK_WORDS]
        steps[start : start + part.size] = _centred(part, middle, word_bits)
    return steps


def _square_norm(words: Words, middle: int, word_bits: int) -> int:
    """Exact sum of squared distances: 16-bit limbs keep every partial sum inside 64 bits."""
    total = 0
    for start in range(0, words.size, _CHUNK_WORDS):
        distance = np.abs(_centred(words[start : start + _CHUNK_WORDS], middle, word_bits))
        high, low = distance >> _LIMB_BITS, distance & ((1 << _LIMB_BITS) - 1)
        total += int(np.sum(high * high)) << (2 * _LIMB_BITS)
        total += int(np.sum(high * low)) << (_LIMB_BITS + 1)
        total += int(np.sum(low * low))
    return total


def _split(segment: Segment, flat: npt.NDArray[_Item], out: dict[str, npt.NDArray[_Item]]) -> None:
    start = 0
    for slot in segment.slots:
        out[slot.name] = flat[start : start + slot.size].reshape(slot.shape)
        start += slot.size


def _out_of_bounds(segment: Segment, sentence: str) -> ProtocolError:
    return ProtocolError(
        "sum-out-of-bounds",
        f"segment {segment.name!r}: {sentence}",
        remedy="a trustee or a device of this cohort sent something else than its protocol says; leave it out",
    )
