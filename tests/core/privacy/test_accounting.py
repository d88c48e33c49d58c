"""The trustee's own bound, beside the exact Gaussian mechanism."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.privacy import Spending, zcdp_epsilon
from bedside.core.privacy.accounting import rho_of


def gaussian_delta(epsilon: float, z: float) -> float:
    """Balle and Wang, 2018, Theorem 8: the exact delta of the continuous Gaussian mechanism of multiplier z."""

    def normal(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return normal(1 / (2 * z) - epsilon * z) - math.exp(epsilon) * normal(-1 / (2 * z) - epsilon * z)


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("z", [0.3, 0.7, 1.0, 4.0, 50.0])
def test_the_bound_holds_for_the_gaussian_and_is_not_far_above_it(z: float, delta: float) -> None:
    bound = zcdp_epsilon(rho_of(round(z * 1e6)), delta)
    assert gaussian_delta(bound, z) <= delta
    assert gaussian_delta(bound * 0.75, z) > delta


@given(st.floats(1e-6, 50), st.floats(1e-12, 1e-2))
def test_the_bound_is_the_smallest_over_alpha_and_never_below_it(rho: float, delta: float) -> None:
    def at(alpha: float) -> float:
        return alpha * rho + math.log(1 / (alpha * delta)) / (alpha - 1) + math.log1p(-1 / alpha)

    grid = min(at(1 + math.exp(step / 50)) for step in range(-700, 1_000))
    found = zcdp_epsilon(rho, delta)
    assert found <= max(grid, 0) * (1 + 1e-6)
    assert found >= max(0, grid) * (1 - 1e-2) - 1e-6
    assert found <= rho + 2 * math.sqrt(rho * math.log(1 / delta))  # the well-known looser form


def test_rounds_add_up_in_rho() -> None:
    four = Spending.of([2_000_000] * 4)
    assert (four.rounds, four.unprotected) == (4, 0)
    assert four.rho == pytest.approx(rho_of(1_000_000))
    assert four.epsilon(1e-5) == pytest.approx(zcdp_epsilon(0.5, 1e-5))
    assert Spending.of([]).epsilon(1e-5) == 0
    assert Spending.of([1_000_000, 3_000_000]).epsilon(1e-5) > Spending.of([1_000_000]).epsilon(1e-5)


def test_one_round_without_noise_costs_infinitely_much() -> None:
    spent = Spending.of([1_000_000, 0])
    assert (spent.rounds, spent.unprotected) == (2, 1)
    assert math.isinf(spent.epsilon(1e-5))


@pytest.mark.parametrize(("rho", "delta"), [(-1.0, 1e-5), (1.0, 0.0), (1.0, 1.0), (math.nan, 1e-5)])
def test_nonsense_is_a_bug_of_the_caller(rho: float, delta: float) -> None:
    with pytest.raises(ValueError, match="no epsilon"):
        zcdp_epsilon(rho, delta)
