"""Stochastic rounding to ring words in fixed point.

A value of v steps becomes floor(v) or floor(v) + 1, the latter with probability v - floor(v), so that the rounding
error is zero on average and a sum of many devices is more exact than each of them. The fraction is kept in 16 bits;
a word is (v 2^16 + T 2^16 + random 16 bits) >> 16.

Laws, for |v| <= T (larger values are clamped to T first):
- every word is in 0..2T, and |word - T - v| < 1;
- the mean over keys of word - T is v within 2^-16 of a step;
- whole numbers, zero above all, are kept exactly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.codec.keystream import KeyStream
from bedside.core.codec.rotation import GROUP_WORDS, FloatArray
from bedside.core.securesum.ring import Words

FRACTION: Final = 1 << 16
"""Parts of a step that are told apart; 8-bit values with it fill the 24 bits of a float32 exactly."""
_FRACTION_BITS: Final = 16
_PURPOSE: Final = b"bedside-round"
_RANDOM_BYTES: Final = 2


class Rounder:
    """Rounds one segment, group by group, under a key that stays on the device.

    Whoever knew the key could take the rounding noise out again: derive it from secret entropy, fresh per update.
    """

    def __init__(self, rounding_key: bytes, segment_index: int, half_levels: int) -> None:
        self._random = KeyStream(rounding_key, _PURPOSE, segment_index, GROUP_WORDS * _RANDOM_BYTES)
        self._top = np.float32(half_levels * FRACTION)
        self._fixed: npt.NDArray[np.int32] = np.empty(GROUP_WORDS, np.int32)

    def round(self, parts: FloatArray, out: Words) -> None:
        """Round `parts` into `out`.

        Args:
            parts: values in 1 / `FRACTION` of a step, one dimension, at most `GROUP_WORDS`; overwritten.
            out: words 0..2T of the same length.
        """
        fixed = self._fixed[: parts.size]
        np.clip(parts, -self._top, self._top, out=parts)
        parts += self._top
        np.copyto(fixed, parts, casting="unsafe")
        fixed += self._random.read(parts.size * _RANDOM_BYTES).view("<u2")
        fixed >>= _FRACTION_BITS
        np.copyto(out, fixed, casting="unsafe")
