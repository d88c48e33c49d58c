"""What the coordinator sees: one stored upload, which is flat noise, beside the opened sum, which is a bell.

Both are counted over the model's words alone; the few words that carry counts are left out.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.codec.layout import Layout, SegmentKind
from bedside.core.securesum.ring import unpack, word_mask
from bedside.demo.result import View

BINS: Final = 48
_FEWEST_STEPS: Final = 8
_SIGMAS_SHOWN: Final = 4.0

Integers = npt.NDArray[np.int64]


def coordinator_view(
    upload: bytes, opened: bytes, layout: Layout, word_bits: int, *, contributors: int, round_number: int
) -> View:
    """Count the words of one stored upload and of the opened sum of the same round.

    Args:
        upload: packed masked words, as a device sent them.
        opened: packed words of the sum, all masks subtracted.
        layout: of the plan.
        word_bits: w of the plan.
        contributors: devices in the sum.
        round_number: of the plan.

    Raises:
        MalformedError: the bytes are not a vector of this layout.
    """
    ring_size = word_mask(word_bits) + 1
    masked = _value_words(upload, layout, word_bits)
    uniform = np.histogram(masked, bins=BINS, range=(0, ring_size))[0]
    centred = _centred(_value_words(opened, layout, word_bits), _middles(layout, contributors), ring_size)
    bell, reach = _bell(centred)
    return View(
        round_number=round_number,
        upload=tuple(int(count) for count in uniform),
        upload_z=uniform_z(uniform),
        opened=tuple(int(count) for count in bell),
        opened_low=-reach,
        opened_high=reach,
        word_bits=word_bits,
        contributors=contributors,
    )


def uniform_z(counts: npt.NDArray[np.int64]) -> float:
    """Pearson's chi-square of `counts` against equal shares, in standard deviations of that statistic.

    Bins of a power-of-two ring are not all equally wide in whole words; over 2^16 words that is far below the noise.
    """
    expected = counts.sum() / counts.size
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    freedom = counts.size - 1
    return (chi_square - freedom) / math.sqrt(2 * freedom)


def _bell(steps: Integers) -> tuple[Integers, float]:
    """Count whole steps in an odd number of bins, all of the same odd width, and return how far they reach."""
    wanted = max(_FEWEST_STEPS, _SIGMAS_SHOWN * float(steps.std()))
    width = math.ceil(2 * wanted / BINS) | 1
    side = math.ceil(wanted / width)
    reach = (2 * side + 1) * width / 2
    return np.histogram(steps, bins=2 * side + 1, range=(-reach, reach))[0], reach


def _value_words(packed: bytes, layout: Layout, word_bits: int) -> Integers:
    words = unpack(packed, layout.words, word_bits).astype(np.int64)
    return np.concatenate([words[place] for one, place in layout.placed() if one.kind is SegmentKind.VALUE])


def _middles(layout: Layout, contributors: int) -> Integers:
    """Where zero lies in the sum, for every value word."""
    parts = [
        np.full(one.words, contributors * one.half_levels, np.int64)
        for one, _ in layout.placed()
        if one.kind is SegmentKind.VALUE
    ]
    return np.concatenate(parts)


def _centred(words: Integers, middles: Integers, ring_size: int) -> Integers:
    """Signed distance of every word from its middle, the short way round the ring."""
    half = ring_size // 2
    return (words - middles + half) % ring_size - half
