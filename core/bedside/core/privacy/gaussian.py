"""The discrete Gaussian N_Z(0, sigma^2): integers x with probability proportional to exp(-x^2 / (2 sigma^2)).

Sampling inverts the cumulative distribution. One table holds floor(2^64 P(X <= x)) for -T <= x < T, computed in
integers of 256 fractional bits; a draw is 64 uniform bits u, and its value is the number of entries not above u.
`numpy.searchsorted` finds it. Before that, the top 16 bits of u point into a guide: where all u with these bits have
the same value, the guide is the answer, which spares the search for nine draws of ten and changes no value.

Above `SINGLE_TABLE_SIGMA` the table would outgrow the cache, and the sum of two draws takes its place: X = A + k B with
k = ceil(sigma / 1,024), sd(A) = 3 k and k^2 Var(B) = sigma^2 - 9 k^2. Completing the square, P(X = x) is the wanted
weight times a shifted Gaussian of deviation t = sd(A) sd(B) / sigma, summed over the integers; by Poisson summation
that sum varies by a factor within 1 +- 4 exp(-2 pi^2 t^2). Here t > 2.99, so that the factor is 1 within 2^-250.

Statistical distance of one draw from N_Z(0, sigma^2), for every sigma up to `MAX_NOISE_SIGMA` = 2^20:
    * tail cut at T = ceil(9.3 sigma): at most 2 Q(9.3) < 2^-65;
    * table rounded down to 2^-64: each of the 2 T + 1 probabilities is off by less than 2^-64, hence at most
      (T + 1/2) 2^-64: 2^-57 at sigma 16, 2^-51 at sigma 512, 2^-50 at 1,024;
    * two tables: the sum of both, at most 2^-48 for sigma = 2^20.
`statistical_distance_log2` gives the figure for a sigma. A vector of d words is within d times that; it adds to delta.

Source: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy" (2020), Proposition 25 for the tail;
Micciancio and Walter, "Gaussian Sampling over the Integers" (2017), for the sum of two.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.codec.keystream import KeyStream
from bedside.core.errors import ProtocolError
from bedside.core.limits import MASK_CHUNK_BYTES, MAX_NOISE_SIGMA

SINGLE_TABLE_SIGMA: Final = 1_024
"""Largest sigma that is drawn from one table."""
ONE_E6: Final = 1_000_000
_TAIL_TENTHS: Final = 93
_FINE_SIGMAS: Final = 3
"""sd(A) / k of the sum of two: 2 exp(-2 pi^2 9) is below 2^-255."""
_DRAW_BYTES: Final = 8
CHUNK_DRAWS: Final = MASK_CHUNK_BYTES // _DRAW_BYTES
"""Draws made at a time: their bits, indices and values stay in the second-level cache."""
_FRACTION_BITS: Final = 256
_GUIDE_BITS: Final = 16
_GUIDE_WORD: Final = -1
"""The place of the top 16 bits among the four 16-bit words of a little-endian 64-bit one."""
_CACHED_TABLES: Final = 16
"""At most 700 kB each, with the guide; a vector has one or two per segment of its own scale."""
_TOP: Final = (1 << 64) - 1
_EXP: Final = Context(prec=90)

Draws = npt.NDArray[np.int64]


class GaussianTable:
    """N_Z(0, variance) on -T..T by one cumulative table.

    Args:
        variance_e12: sigma^2 in units of 10^-12, above 0.
        tail: T.
    """

    def __init__(self, variance_e12: int, tail: int) -> None:
        self.tail = tail
        self.cumulative = _cumulative(variance_e12, tail)
        edges = np.arange(1 << _GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - _GUIDE_BITS)
        first = np.searchsorted(self.cumulative, edges, side="right").astype(np.int32)
        last = np.append(first[1:], np.int32(2 * tail))
        self._guide = np.where(first == last, first, np.int32(-1))

    def draw(self, bits: npt.NDArray[np.uint64]) -> Draws:
        """One value for each 64 uniform bits."""
        top = bits.astype("<u8", copy=False).view("<u2").reshape(-1, 4)[:, _GUIDE_WORD]
        index: npt.NDArray[np.int32] = self._guide[top]
        unsure = np.flatnonzero(index < 0)
        index[unsure] = np.searchsorted(self.cumulative, bits[unsure], side="right")
        return index.astype(np.int64) - self.tail


class DiscreteGaussian:
    """N_Z(0, sigma^2), drawn from a key stream.

    Args:
        sigma_e6: standard deviation in millionths; 1 to `MAX_NOISE_SIGMA` millions.

    Attributes:
        tail: no value is further from zero than this, ever.

    Raises:
        ProtocolError: `noise-too-large`.
    """

    def __init__(self, sigma_e6: int) -> None:
        parts = _parts(sigma_e6)
        self.tail = _tail_of(parts)
        self._tables = [(factor, _table(variance_e12, _tail(variance_e12))) for factor, variance_e12 in parts]

    @property
    def tables(self) -> list[GaussianTable]:
        """The one table, or the fine and the coarse one."""
        return [table for _, table in self._tables]

    def draw(self, streams: list[KeyStream], count: int) -> Draws:
        """`count` values, at most `CHUNK_DRAWS`; reads 8 `count` bytes of one stream per table."""
        total = np.zeros(count, np.int64)
        for (factor, table), stream in zip(self._tables, streams, strict=True):
            total += factor * table.draw(stream.read(count * _DRAW_BYTES).view("<u8"))
        return total


@lru_cache(maxsize=_CACHED_TABLES)
def gaussian(sigma_e6: int) -> DiscreteGaussian:
    """The sampler for a sigma; raises as `DiscreteGaussian`."""
    return DiscreteGaussian(sigma_e6)


def largest_draw(sigma_e6: int) -> int:
    """How far from zero a value can be, without making a table; 0 without noise.

    Raises:
        ProtocolError: `noise-too-large`.
    """
    return _tail_of(_parts(sigma_e6)) if sigma_e6 else 0


def statistical_distance_log2(sigma_e6: int) -> float:
    """Binary logarithm of the bound on the distance of one draw from the exact distribution."""
    tails = [_tail(variance_e12) for _, variance_e12 in _parts(sigma_e6)]
    return math.log2(sum((tail + 0.5) * 2.0**-64 + 2.0**-65 for tail in tails))


def _parts(sigma_e6: int) -> list[tuple[int, int]]:
    """(factor, variance in 10^-12) of the draws that make up one value."""
    if not 0 < sigma_e6 <= MAX_NOISE_SIGMA * ONE_E6:
        raise ProtocolError(
            "noise-too-large",
            f"noise of {sigma_e6 / ONE_E6:g} ring steps is outside what the sampler draws, up to {MAX_NOISE_SIGMA}",
            remedy="use fewer bits per value, a smaller cap or a smaller noise multiplier",
        )
    if sigma_e6 <= SINGLE_TABLE_SIGMA * ONE_E6:
        return [(1, sigma_e6**2)]
    factor = -(-sigma_e6 // (SINGLE_TABLE_SIGMA * ONE_E6))
    fine_e12 = (_FINE_SIGMAS * factor * ONE_E6) ** 2
    # Rounded up to 10^-12: the variance of the sum is never below what was promised.
    coarse_e12 = -(-(sigma_e6**2 - fine_e12) // factor**2)
    return [(1, fine_e12), (factor, coarse_e12)]


def _tail(variance_e12: int) -> int:
    """ceil(9.3 sigma)."""
    return -(-_TAIL_TENTHS * (math.isqrt(variance_e12 - 1) + 1) // (10 * ONE_E6))


def _tail_of(parts: list[tuple[int, int]]) -> int:
    return sum(factor * _tail(variance_e12) for factor, variance_e12 in parts)


@lru_cache(maxsize=_CACHED_TABLES)
def _table(variance_e12: int, tail: int) -> GaussianTable:
    return GaussianTable(variance_e12, tail)


def _cumulative(variance_e12: int, tail: int) -> npt.NDArray[np.uint64]:
    """floor(2^64 P(X <= x)) for x in -tail..tail-1.

    Weights follow from w(x + 1) = w(x) q^(2 x + 1) with q = exp(-1 / (2 variance)): 90 digits of q, and 256 fractional
    bits for at most 3 10^4 steps, leave far more than the 64 bits that are kept.
    """
    one = 1 << _FRACTION_BITS
    power = _EXP.exp(_EXP.divide(Decimal(-(ONE_E6**2)), Decimal(2 * variance_e12)))
    ratio = int(_EXP.multiply(power, Decimal(one)))
    square = ratio * ratio >> _FRACTION_BITS
    weights = [one]
    for _ in range(tail):
        weights.append(weights[-1] * ratio >> _FRACTION_BITS)
        ratio = ratio * square >> _FRACTION_BITS
    total = 2 * sum(weights) - one
    table, running = [], 0
    for x in range(-tail, tail):
        running += weights[abs(x)]
        table.append(min((running << 64) // total, _TOP))  # a last weight below 2^-256 leaves it all to the others
    return np.array(table, np.uint64)
