"""Level Q2: weights that live as int8 on a fixed scale per output channel, and the noise that rounds them.

A round begins by rounding its float weights onto a grid that reaches twice as far as the largest of a channel, so that
they can grow; a step's new weights are rounded to one of their two neighbours, the nearer one more often, so that the
rounding is zero on average. The noise comes from a seed: PCG64's raw output, whose stream numpy keeps (NEP 19).

Source: Gupta et al. 2015, "Deep Learning with Limited Numerical Precision", section 3.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.ondevice.runtimes import Float32

NOISE_LEVELS: Final = 1 << 16
GRID_MAX: Final = 127
"""Largest magnitude on the grid."""

_HEADROOM: Final = 2.0
"""How far the grid reaches, over the largest weight of its channel."""

_LEAST_SHARE: Final = 1 / 16
"""A channel's grid reaches at least so far, as a share of the layer's largest: small weights may grow, too."""

Int8 = npt.NDArray[np.int8]


class Noise:
    """Uniform uint16 values, the same on every machine for one seed.

    Attributes:
        position: 64-bit words of the stream that were used.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._bits = np.random.PCG64(seed)
        self.position = 0

    def seek(self, position: int) -> None:
        """Go on from another place of the stream."""
        self._bits = np.random.PCG64(self._seed)
        self._bits.advance(position)
        self.position = position

    def draw(self, count: int) -> npt.NDArray[np.uint16]:
        """The next `count` values."""
        words = -(-count // 4)
        self.position += words
        raw = np.asarray(self._bits.random_raw(words), "<u8")
        return raw.view("<u2")[:count].astype(np.uint16)


def grid_scale(weight: Float32) -> Float32:
    """The scale per output channel (the last axis) of a weight's grid."""
    largest = np.abs(weight.reshape(-1, weight.shape[-1])).max(axis=0)
    reach = np.maximum(largest, (largest.max() or 1.0) * _LEAST_SHARE) * _HEADROOM
    scale: Float32 = (reach / GRID_MAX).astype(np.float32)
    return scale


def to_grid(weight: Float32, scale: Float32, noise: Noise) -> Int8:
    """Round a weight onto its grid, to either neighbour by chance."""
    chance = noise.draw(weight.size).reshape(weight.shape) / np.float32(NOISE_LEVELS)
    return np.clip(np.floor(weight / scale + chance), -GRID_MAX, GRID_MAX).astype(np.int8)


def from_grid(values: Int8, scale: Float32) -> Float32:
    """What the integers stand for."""
    return (values * scale).astype(np.float32)
