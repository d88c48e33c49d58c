"""What rounds cost together, without any library: zero-concentrated differential privacy and its conversion.

A round of multiplier z is rho-zCDP with rho = 1 / (2 z^2); rounds add up, whatever was chosen in between, and rounds of
different purposes and tasks too. One without noise costs infinitely much.

The relation of neighbours is that of `mechanism`: one device's contribution to each round, present or saying nothing.
Composed over rounds, the figure bounds what all rounds together tell of one device's contributions; it is not a bound
for a patient whose data is on several devices.

Conversion to (epsilon, delta): Canonne, Kamath, Steinke, 2020, Proposition 12 for rho-zCDP (Corollary 13 before it is
simplified): for every alpha > 1,

    epsilon = alpha rho + (log(1 / delta) - log alpha) / (alpha - 1) + log(1 - 1 / alpha)

holds; the smallest is looked for numerically. Stopping early costs tightness, never truth. Figures are rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bedside.core.privacy.gaussian import ONE_E6

_ROUNDING: Final = 1 + 1e-9
"""Covers float64 rounding, upwards."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_SEARCH_STEPS: Final = 120
_LOG_ALPHA_RANGE: Final = (-30.0, 60.0)
"""Natural logarithms of alpha - 1 between which the smallest epsilon lies for every rho and delta of interest."""


def rho_of(multiplier_e6: int) -> float:
    """What one round costs in zCDP; infinite without noise."""
    return ONE_E6 * ONE_E6 / (2 * multiplier_e6 * multiplier_e6) if multiplier_e6 else math.inf


def zcdp_epsilon(rho: float, delta: float) -> float:
    """A bound on epsilon at `delta` for anything that is rho-zCDP; at least 0, infinite where rho is.

    Raises:
        ValueError: delta is not within 0 and 1, or rho is negative (a bug of the caller).
    """
    if not 0 < delta < 1 or not rho >= 0:
        raise ValueError(f"no epsilon for rho {rho} and delta {delta}")
    if rho == 0 or math.isinf(rho):
        return rho
    low, high = _LOG_ALPHA_RANGE
    for _ in range(_SEARCH_STEPS):
        span = _GOLDEN * (high - low)
        left, right = high - span, low + span
        if _epsilon_at(left, rho, delta) <= _epsilon_at(right, rho, delta):
            high = right
        else:
            low = left
    return max(0.0, _epsilon_at((low + high) / 2, rho, delta)) * _ROUNDING


@dataclass(frozen=True, slots=True)
class Spending:
    """What a number of rounds has cost.

    Attributes:
        rounds: how many.
        unprotected: how many of them had no noise.
        rho: of those that had, together.
    """

    rounds: int = 0
    unprotected: int = 0
    rho: float = 0.0

    @classmethod
    def of(cls, multipliers_e6: Iterable[int]) -> Spending:
        """The cost of rounds with these noise multipliers."""
        listed = list(multipliers_e6)
        noisy = [rho_of(one) for one in listed if one]
        return cls(len(listed), len(listed) - len(noisy), math.fsum(noisy))

    def epsilon(self, delta: float) -> float:
        """Bound on epsilon; infinite as soon as one round had no noise. Raises as `zcdp_epsilon`."""
        return math.inf if self.unprotected else zcdp_epsilon(self.rho, delta)


def _epsilon_at(log_excess: float, rho: float, delta: float) -> float:
    excess = math.exp(log_excess)  # alpha - 1
    log_alpha = math.log1p(excess)
    return (1 + excess) * rho + (-math.log(delta) - log_alpha) / excess + log_excess - log_alpha
