"""From the stream's rate to the model's: rational resampling with an anti-aliasing filter.

Output sample j lies at the time j / rate_hz after the run's first sample and is a weighted sum of the input samples
round it; none is put out before all of them are there, and none that would need samples from before the run.

Invariant: bit for bit the same whatever the blocks, since every output is one sum over its own taps in their order.

Source: Oppenheim & Schafer, Discrete-Time Signal Processing, 3rd ed., sections 4.6 (polyphase) and 7.5 (Kaiser window).
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

MAX_COEFFICIENTS: Final = 1 << 16
"""Taps of all phases together, half a second of work when a stream begins: only two coprime rates need more."""
_MAX_PRODUCTS: Final = 1 << 20
"""Products held at once, 8 MiB; more outputs are made in turns."""


def ratio_of(from_hz: float, to_hz: float) -> Fraction:
    """Output samples per input sample, on the grid of 1/1000 Hz that stream times have."""
    return Fraction(max(1, round(to_hz * 1000)), max(1, round(from_hz * 1000)))


def half_taps(ratio: Fraction, half_width: int) -> int:
    """Input samples on each side of an output: `half_width` periods of the slower rate."""
    return math.ceil(half_width / min(ratio, Fraction(1)))


def fits(ratio: Fraction, half_width: int) -> bool:
    """Whether the taps of all phases stay within their bound."""
    return ratio.numerator * 2 * half_taps(ratio, half_width) <= MAX_COEFFICIENTS


@lru_cache(maxsize=8)
def phases(ratio: Fraction, half_width: int, beta: float) -> Float64:
    """Weights (phase, tap): tap t of phase p stands `t + 1 - half_taps + p / up` samples from the output.

    The weights of each phase sum to 1, so that a level stays what it is. Read-only.
    """
    up, half = ratio.numerator, half_taps(ratio, half_width)
    cutoff = float(min(ratio, Fraction(1)))
    reach = half_width / cutoff
    table = np.empty((up, 2 * half))
    for phase in range(up):
        distances = [tap + 1 - half - phase / up for tap in range(2 * half)]
        weights = [_kaiser(distance / reach, beta) * _sinc(cutoff * distance) for distance in distances]
        total = math.fsum(weights)
        table[phase] = [weight / total for weight in weights]
    table.flags.writeable = False
    return table


class Resampler:
    """One run of one stream, all channels alike.

    Attributes:
        first: number of the first output sample that can be had, counted from the run's beginning.
    """

    def __init__(self, ratio: Fraction, half_width: int, beta: float) -> None:
        self._ratio = ratio
        self._half = half_taps(ratio, half_width)
        self._phases = phases(ratio, half_width, beta)
        self._kept: Float64 | None = None
        self._kept_index = 0
        self.first = math.ceil((self._half - 1) * ratio)
        self._next = self.first

    def push(self, samples: Float64) -> Float64:
        """Take the next (samples, channels); return the outputs that they completed."""
        self._kept = samples if self._kept is None else np.concatenate([self._kept, samples])
        available = self._kept_index + len(self._kept)
        end = math.ceil((available - self._half) * self._ratio)  # the last one needs floor(j / ratio) + half
        if end <= self._next:
            return self._kept[:0]
        step = max(1, _MAX_PRODUCTS // (2 * self._half * self._kept.shape[1]))
        outputs = [self._weigh(first, min(first + step, end)) for first in range(self._next, end, step)]
        self._next = end
        spent = end * self._ratio.denominator // self._ratio.numerator - self._half + 1 - self._kept_index
        if spent > 0:
            spent = min(spent, len(self._kept))
            self._kept, self._kept_index = self._kept[spent:], self._kept_index + spent
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _weigh(self, first: int, end: int) -> Float64:
        """Outputs `first` to `end` (exclusive)."""
        assert self._kept is not None  # noqa: S101 - `push` filled it
        up, down = self._ratio.numerator, self._ratio.denominator
        positions = np.arange(first, end, dtype=np.int64) * down
        before = positions // up - self._half + 1 - self._kept_index
        picked = self._kept[before + np.arange(2 * self._half)[:, np.newaxis]]  # (tap, output, channel)
        weighted = picked * self._phases[positions % up].T[:, :, np.newaxis]
        # A plain sum may add in pairs, depending on the shape; accumulating never does.
        output: Float64 = np.add.accumulate(weighted, axis=0)[-1].copy()  # a view would keep all taps
        return output


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0


def _kaiser(x: float, beta: float) -> float:
    """The window at `x` of its half width; 0 outside."""
    return _bessel(beta * math.sqrt(1 - x * x)) / _bessel(beta) if abs(x) <= 1 else 0.0


def _bessel(x: float) -> float:
    """Modified Bessel function of order 0, by its series."""
    term, total, k = 1.0, 1.0, 0
    while term > total * 1e-17:
        k += 1
        term *= (x / (2 * k)) ** 2
        total += term
    return total
