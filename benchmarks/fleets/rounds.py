"""One round without network and masks: the project's own weights, codec, sum, checks, combiner and optimiser.

Masks cancel exactly in the ring, so that the sum of encoded vectors is what a coordinator opens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bedside.core.codec import (
    Layout,
    Segment,
    SegmentKind,
    TensorSlot,
    TensorUpdate,
    check_sum,
    decode_sum,
    encode_pieces,
)
from bedside.core.learning.combiners import CohortPart
from bedside.core.learning.training_layout import narrowest_ring
from bedside.core.learning.weighting import Weighting, contribution_weight, counted_examples
from bedside.core.limits import MIN_WORD_BITS
from bedside.core.securesum.ring import packed_bytes, reduce_in_place, word_dtype

from .models import Tensors

EXAMPLES = "examples"


class Contribution(NamedTuple):
    """What one device trains and counts.

    Attributes:
        delta: new minus old parameters.
        examples: what it claims to have trained on.
        weighed: the delta is sent as it is, though clipped; how a liar avoids the weight of its claim.
    """

    delta: Tensors
    examples: int
    weighed: bool = False


class Codec(NamedTuple):
    """How a vector is made: see `Segment`."""

    clip: float
    bits: int = 8
    rotation_block: int = 1_024
    subsample: float = 1.0

    def layout(self, tensors: Tensors, cap: int) -> Layout:
        """All tensors in one segment, and the count of examples."""
        slots = tuple(TensorSlot(name, tensor.shape) for name, tensor in tensors.items())
        values = Segment(
            "parameters",
            SegmentKind.VALUE,
            slots,
            clip_e6=round(self.clip * 1e6),
            bits=self.bits,
            rotation_block=self.rotation_block,
            subsample_e32=int(self.subsample * (1 << 32)) if self.subsample < 1 else 0,
        )
        return Layout((values, Segment(EXAMPLES, SegmentKind.COUNT, cap=cap)))


def upload_bits(layout: Layout, devices: int) -> int:
    """Bits of one packed upload, without its header of some kilobytes."""
    return 8 * packed_bytes(layout.words, narrowest_ring(layout, devices, least_bits=MIN_WORD_BITS))


def open_cohort(cohort: Sequence[Contribution], layout: Layout, seed: bytes, cap: int) -> CohortPart:
    """Encode every device's vector, add them in the ring, check the bounds and decode."""
    word_bits = narrowest_ring(layout, len(cohort), least_bits=MIN_WORD_BITS)
    total = np.zeros(layout.words, word_dtype(word_bits))
    for number, one in enumerate(cohort):
        weight = 1.0 if one.weighed else contribution_weight(Weighting.EXAMPLES, one.examples, cap)
        update = TensorUpdate(one.delta, {EXAMPLES: counted_examples(one.examples, cap)}, layout, weight)
        key = hashlib.blake2b(seed, digest_size=32, salt=number.to_bytes(4, "little")).digest()
        at = 0
        for piece in encode_pieces(update, layout, seed, key, word_bits=word_bits):
            total[at : at + piece.size] += piece
            at += piece.size
    reduce_in_place(total, word_bits)
    check_sum(total, layout, len(cohort), word_bits=word_bits)
    opened = decode_sum(total, layout, seed, len(cohort), word_bits=word_bits)
    return CohortPart(opened.tensors, len(cohort), int(opened.counts[EXAMPLES]))


def float_cohort(cohort: Sequence[Contribution], cap: int) -> CohortPart:
    """The same sum in float64 without a codec: no clip, no rounding."""
    weights = [contribution_weight(Weighting.EXAMPLES, one.examples, cap) for one in cohort]
    parts = [(one.delta, weight) for one, weight in zip(cohort, weights, strict=True)]
    total = {
        name: np.sum([delta[name] * np.float64(weight) for delta, weight in parts], axis=0) for name in cohort[0].delta
    }
    examples = sum(counted_examples(one.examples, cap) for one in cohort)
    return CohortPart({name: tensor.astype(np.float32) for name, tensor in total.items()}, len(cohort), examples)


def round_seed(run: int, number: int, cohort: int = 0) -> bytes:
    """What H and the round keys would give: another seed for every run, round and cohort."""
    return hashlib.blake2b(f"{run}/{number}/{cohort}".encode(), digest_size=32).digest()
