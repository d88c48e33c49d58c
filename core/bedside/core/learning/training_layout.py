"""The vector of a training plan, and the ring that holds a sum of such vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from bedside.core.bundle.parameters import TensorSpec
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.errors import ProtocolError
from bedside.core.learning.step import EXAMPLES, STATISTICS
from bedside.core.limits import MAX_WORD_BITS

PARAMETERS: Final = "parameters"
"""The segment of tensors that gradients move."""

CORRECT: Final = "correct"
"""The count of examples that the round's model got right before training."""

ROTATION_BLOCK: Final = 1_024
"""Words of one rotation block: measured to be the cheapest (DESIGN section 5)."""

_FIRST_WORD_BITS: Final = 16
"""The narrowest ring that is a machine word; wider ones are taken only where sums need them."""


class ValueTerms(NamedTuple):
    """How values travel: see `Segment`. `clip_e6` bounds the norm of all values of a contribution together."""

    clip_e6: int
    bits: int
    subsample_e32: int = 0


def training_layout(shared: Sequence[TensorSpec], terms: ValueTerms, cap: int) -> Layout:
    """The shared tensors that a plan trains, those that devices observe, and two counts of up to `cap` examples."""
    groups = {PARAMETERS: [spec for spec in shared if spec.trained], STATISTICS: [s for s in shared if not s.trained]}
    named = {name: specs for name, specs in groups.items() if specs}
    clip_e6 = int(terms.clip_e6 / math.sqrt(len(named)))  # a contribution's whole norm is what the plan was asked for
    values = (_values(name, specs, terms._replace(clip_e6=clip_e6)) for name, specs in named.items())
    counts = (Segment(name, SegmentKind.COUNT, cap=cap) for name in (EXAMPLES, CORRECT))
    return Layout((*values, *counts))


def _values(name: str, specs: Sequence[TensorSpec], terms: ValueTerms) -> Segment:
    """A segment in one rotation, whose blocks are no longer than it is."""
    words = sum(math.prod(spec.shape) for spec in specs)
    return Segment(
        name,
        SegmentKind.VALUE,
        tuple(TensorSlot(spec.name, spec.shape) for spec in specs),
        clip_e6=terms.clip_e6,
        bits=terms.bits,
        rotation_block=min(ROTATION_BLOCK, max(2, 1 << (words - 1).bit_length())),
        subsample_e32=terms.subsample_e32,
    )


def narrowest_ring(
    layout: Layout, contributors: int, tails: Sequence[int] = (), least_bits: int = _FIRST_WORD_BITS
) -> int:
    """The least number of bits, from 16 by default, that holds a sum of so many vectors, and noise that reaches so far.

    Raises:
        ProtocolError: `ring-overflow` when 32 do not.
    """
    for word_bits in range(least_bits, MAX_WORD_BITS):
        try:
            layout.check_fits(contributors, word_bits, tails)
        except ProtocolError:
            continue
        return word_bits
    layout.check_fits(contributors, MAX_WORD_BITS, tails)
    return MAX_WORD_BITS
