"""The layout of a vector: which words carry which tensors and counts, how they are clipped, rotated and quantised.

A layout is a list of segments. A VALUE segment is a group of tensors that are clipped and rotated together; a COUNT
segment carries exact integers. Everything that a scale depends on is here, in integers: nothing is free for a
device or a coordinator to choose later. The wire form is `bedside.proto.v1.Layout`, with the same field names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from bedside.core.errors import MalformedError
from bedside.core.limits import (
    MAX_SEGMENTS,
    MAX_TEXT_CHARS,
    MAX_VALUE_BITS,
    MAX_VECTOR_WORDS,
    MIN_SUBSAMPLE_E32,
    MIN_VALUE_BITS,
)
from bedside.core.securesum.ring import check_no_overflow, check_sum_fits

MAX_ROTATION_BLOCK: Final = 4_096
"""Words of one rotation block: two 64 x 64 matrix products, which stay in the first-level cache."""
MAX_TENSOR_AXES: Final = 8
"""Axes of one tensor; convolutions have at most five."""
MAX_TENSORS: Final = 4_096
"""Tensors of a whole layout: as many as segments."""
ROTATED_RANGE_SIGMAS: Final = {2: 1.75, 3: 2.25, 4: 2.75, 5: 3.25, 6: 3.75, 7: 4.0, 8: 4.5}
"""Half-width of a rotated segment's quantiser by bits, in units of clip / sqrt(words).

A rotated block is close to Gaussian. A narrow range makes fine steps, whose error averages out over devices, and
clamps more values, whose error does not; these widths keep the clamped error of a segment that is exactly as long
as the clip under a tenth of its rounding error, and it vanishes for shorter ones. At 8 bits, 7 values in a million
are clamped.
"""


_WHOLE_E32: Final = 1 << 32
"""All coordinates, in the unit of `subsample_e32`."""


class SegmentKind(IntEnum):
    """What a segment's words mean; numbered as on the wire."""

    VALUE = 1
    COUNT = 2


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """One named tensor. An empty shape is a scalar."""

    name: str
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of words.

    Attributes:
        name: unique in the layout.
        kind: VALUE or COUNT.
        tensors: what the segment joins, in order, each flattened in C order. A COUNT segment without tensors is
            one count that has the segment's name.
        clip_e6: L2 bound of the whole segment, millionths (VALUE).
        bits: bits of one quantised value, 2..8 (VALUE).
        rotation_block: words of one Hadamard block: 0 for no rotation, or a power of two up to 4,096 (VALUE).
        cap: largest count that one device may contribute to one word (COUNT).
        subsample_e32: share of the coordinates that is sent, in 2^-32, from 1/16; 0 sends all (VALUE). It is the
            plan's, the same for all its VALUE segments.

    Raises:
        MalformedError: `bad-layout`.
    """

    name: str
    kind: SegmentKind
    tensors: tuple[TensorSlot, ...] = ()
    clip_e6: int = 0
    bits: int = 0
    rotation_block: int = 0
    cap: int = 0
    subsample_e32: int = 0

    def __post_init__(self) -> None:
        _require(0 < len(self.name) <= MAX_TEXT_CHARS, "a segment needs a name")
        for slot in self.tensors:
            _require(0 < len(slot.name) <= MAX_TEXT_CHARS, f"a tensor of segment {self.name!r} needs a name")
            sane = len(slot.shape) <= MAX_TENSOR_AXES and all(0 < n <= MAX_VECTOR_WORDS for n in slot.shape)
            _require(sane, f"tensor {slot.name!r} has an impossible shape")
        if self.kind is SegmentKind.VALUE:
            self._check_value()
        else:
            _require(0 < self.cap < 1 << 32, f"segment {self.name!r} needs a cap of 1 to 2^32 - 1 per count")
            unused = self.clip_e6 == self.bits == self.rotation_block == self.subsample_e32 == 0
            _require(unused, f"segment {self.name!r} counts: clip, bits, rotation and subsampling must be zero")
        _require(self.full_words <= MAX_VECTOR_WORDS, f"segment {self.name!r} takes too many words")

    def _check_value(self) -> None:
        block = self.rotation_block
        _require(bool(self.tensors), f"segment {self.name!r} has no tensors")
        _require(0 < self.clip_e6 < 1 << 63, f"segment {self.name!r} has no clip")
        _require(MIN_VALUE_BITS <= self.bits <= MAX_VALUE_BITS, f"segment {self.name!r} has {self.bits} bits")
        power = block == 0 or (2 <= block <= MAX_ROTATION_BLOCK and block & (block - 1) == 0)
        _require(power, f"segment {self.name!r}: rotation block {block} is not 0 or 2 to {MAX_ROTATION_BLOCK}")
        _require(self.cap == 0, f"segment {self.name!r} holds values: cap must be zero")
        share = self.subsample_e32 == 0 or MIN_SUBSAMPLE_E32 <= self.subsample_e32 < _WHOLE_E32
        _require(share, f"segment {self.name!r} sends less than 1/16 of its coordinates")

    @property
    def slots(self) -> tuple[TensorSlot, ...]:
        """The tensors or counts, also where a lone count leaves `tensors` empty."""
        return self.tensors or (TensorSlot(self.name),)

    @property
    def length(self) -> int:
        """Elements that carry something, in words."""
        return sum(slot.size for slot in self.slots)

    @property
    def full_words(self) -> int:
        """`length`, padded up to whole rotation blocks: the coordinates that a share is taken of."""
        return self.length if not self.rotation_block else -(-self.length // self.rotation_block) * self.rotation_block

    @property
    def words(self) -> int:
        """Words that the segment takes in the vector: `full_words`, or the share of them that is sent, rounded up."""
        full = self.full_words
        return full if not self.subsample_e32 else -(-full * self.subsample_e32 // _WHOLE_E32)

    @property
    def clip(self) -> float:
        """The L2 bound."""
        return self.clip_e6 / 1e6

    @property
    def half_levels(self) -> int:
        """Largest step count T of a value: values are -T..T steps, and words 0..2T, with zero at T."""
        return (1 << (self.bits - 1)) - 1

    @property
    def largest_word(self) -> int:
        """Largest word of one device's contribution."""
        return 2 * self.half_levels if self.kind is SegmentKind.VALUE else self.cap

    @property
    def step(self) -> float:
        """Size of one quantiser step; follows from clip, bits and words alone.

        T steps reach the range: the clip itself without rotation, else `ROTATED_RANGE_SIGMAS` times clip /
        sqrt(full words), but never more than the clip, since no coordinate can be longer than the vector.
        """
        sigmas = ROTATED_RANGE_SIGMAS[self.bits] / math.sqrt(self.full_words) if self.rotation_block else 1.0
        return self.clip * min(1.0, sigmas) / self.half_levels


@dataclass(frozen=True, slots=True)
class Layout:
    """The segments of a vector, in order.

    Raises:
        MalformedError: `bad-layout` for no or too many segments, tensors or words, and for names used twice.
    """

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        _require(0 < len(self.segments) <= MAX_SEGMENTS, f"a layout has 1 to {MAX_SEGMENTS} segments")
        names = [slot.name for segment in self.segments for slot in segment.slots]
        _require(len(names) <= MAX_TENSORS, f"a layout has at most {MAX_TENSORS} tensors")
        _require(len(set(names)) == len(names), "two tensors or counts have the same name")
        _require(len({s.name for s in self.segments}) == len(self.segments), "two segments have the same name")
        _require(self.words <= MAX_VECTOR_WORDS, f"the layout takes more than {MAX_VECTOR_WORDS} words")

    @property
    def words(self) -> int:
        """Words of the whole vector as it is sent, padding included."""
        return sum(segment.words for segment in self.segments)

    def placed(self) -> tuple[tuple[Segment, slice], ...]:
        """Every segment with its place in the vector."""
        placed = []
        start = 0
        for segment in self.segments:
            placed.append((segment, slice(start, start + segment.words)))
            start += segment.words
        return tuple(placed)

    def check_fits(self, contributors: int, word_bits: int, noise_tails: Sequence[int] = ()) -> None:
        """Refuse a ring in which a sum of `contributors` vectors and the noise could wrap.

        Args:
            contributors: n, the most devices in one sum.
            word_bits: w.
            noise_tails: per segment, the distance between the lowest and the highest noise that all trustees together
                can add to one word; empty without noise.

        Raises:
            ProtocolError: `ring-overflow`.
        """
        for segment, noise_tail in zip(self.segments, noise_tails or [0] * len(self.segments), strict=True):
            if segment.kind is SegmentKind.VALUE:
                check_no_overflow(contributors, segment.bits, word_bits, noise_tail)
            else:
                check_sum_fits(contributors, segment.cap, word_bits, noise_tail)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise MalformedError("bad-layout", sentence)
