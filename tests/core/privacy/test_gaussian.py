"""The sampler against exact probabilities, against another library, and at its edges."""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.codec.keystream import KeyStream
from bedside.core.errors import ProtocolError
from bedside.core.limits import MAX_NOISE_SIGMA
from bedside.core.privacy.gaussian import (
    CHUNK_DRAWS,
    SINGLE_TABLE_SIGMA,
    DiscreteGaussian,
    gaussian,
    largest_draw,
    statistical_distance_log2,
)

EXACT = Context(prec=120)
FALSE_ALARM_NATS = 14.0
"""exp(-14) is below a millionth."""


def exact_weights(sigma: Fraction, tail: int) -> list[Fraction]:
    """exp(-x^2 / (2 sigma^2)) for x = 0..tail, each from 120 digits of its own: no recursion that could drift."""
    rate = 1 / (2 * sigma * sigma)
    weights = []
    for x in range(tail + 1):
        exponent = EXACT.divide(Decimal(-x * x * rate.numerator), Decimal(rate.denominator))
        weights.append(Fraction(EXACT.exp(exponent)))
    return weights


def draws(sigma_e6: int, count: int, seed: bytes = b"s" * 32) -> np.ndarray:
    sampler = gaussian(sigma_e6)
    purposes = (b"a", b"b")[: len(sampler.tables)]
    streams = [KeyStream(seed, purpose, 0, 8 * CHUNK_DRAWS) for purpose in purposes]
    rounds = -(-count // CHUNK_DRAWS)
    return np.concatenate([sampler.draw(streams, CHUNK_DRAWS) for _ in range(rounds)])[:count]


def chi_square_limit(freedom: int) -> float:
    """Laurent and Massart, 2000: passed with a probability below exp(-14)."""
    return freedom + 2 * math.sqrt(freedom * FALSE_ALARM_NATS) + 2 * FALSE_ALARM_NATS


@pytest.mark.parametrize("sigma_e6", [10_000, 500_000, 3_141_593, 64_000_000])
def test_every_entry_of_the_table_is_the_exact_probability_rounded_down(sigma_e6: int) -> None:
    (table,) = gaussian(sigma_e6).tables
    tail = table.tail
    weights = exact_weights(Fraction(sigma_e6, 10**6), tail)
    total = 2 * sum(weights) - weights[0]
    running = Fraction(0)
    for entry, x in zip(table.cumulative.tolist(), range(-tail, tail), strict=True):
        running += weights[abs(x)]
        exact = running / total * (1 << 64)
        assert 0 <= exact - entry <= 1, x


@pytest.mark.parametrize("sigma_e6", [500_000, 8_000_000, 512_000_000])
def test_the_distance_to_the_exact_distribution_is_within_what_is_stated(sigma_e6: int) -> None:
    (table,) = gaussian(sigma_e6).tables
    sigma, tail = Fraction(sigma_e6, 10**6), table.tail
    weights = exact_weights(sigma, tail)
    beyond = sum(exact_weights(sigma, tail + 40)[tail + 1 :])  # the rest is below exp(-43) of the first of these
    total = 2 * (sum(weights) + beyond) - weights[0]
    edges = [0, *table.cumulative.tolist(), 1 << 64]
    ours = [Fraction(high - low, 1 << 64) for low, high in pairwise(edges)]
    exact = [weights[abs(x)] / total for x in range(-tail, tail + 1)]
    assert sum(ours) == 1
    distance = (sum(abs(a - b) for a, b in zip(ours, exact, strict=True)) + 2 * beyond / total) / 2
    assert 0 < distance < Fraction(2.0 ** statistical_distance_log2(sigma_e6))


def test_the_stated_distances_hold() -> None:
    assert statistical_distance_log2(16_000_000) < -56
    assert statistical_distance_log2(512_000_000) < -51
    assert statistical_distance_log2(1_024_000_000) < -50
    assert max(statistical_distance_log2(s * 10**6) for s in (1_025, 5_000, 77_777, MAX_NOISE_SIGMA)) < -48


@pytest.mark.parametrize("sigma_e6", [1_024_000_001, 1_500_000_000, 2_049_000_000])
def test_the_sum_of_two_draws_has_the_exact_distribution(sigma_e6: int) -> None:
    fine, coarse = gaussian(sigma_e6).tables
    factor = -(-sigma_e6 // (SINGLE_TABLE_SIGMA * 10**6))

    def probabilities(cumulative: np.ndarray) -> np.ndarray:
        edges = [0, *cumulative.tolist(), 1 << 64]
        return np.array([(high - low) / 2**64 for low, high in pairwise(edges)])

    spread = np.zeros(2 * factor * coarse.tail + 1)
    spread[::factor] = probabilities(coarse.cumulative)
    ours = np.convolve(spread, probabilities(fine.cumulative))
    middle = ours.size // 2
    x = np.arange(ours.size) - middle
    exact = np.exp(-((x / (sigma_e6 / 1e6)) ** 2) / 2)
    exact /= exact.sum()
    assert np.abs(ours - exact).sum() / 2 < 1e-12  # float64 sums; a factor that is off by one gives 1e-3


@pytest.mark.parametrize("sigma_e6", [700_000, 8_000_000, 512_000_000, 1_024_000_000])
def test_the_guide_changes_no_value(sigma_e6: int) -> None:
    (table,) = gaussian(sigma_e6).tables
    corners = np.arange(1 << 16, dtype=np.uint64) << np.uint64(48)
    with np.errstate(over="ignore"):
        near = [table.cumulative - np.uint64(1), table.cumulative, table.cumulative + np.uint64(1)]
        bits = np.concatenate([corners, corners - np.uint64(1), *near])
    plain = np.searchsorted(table.cumulative, bits, side="right") - table.tail
    assert np.array_equal(table.draw(bits), plain)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, MAX_NOISE_SIGMA * 10**6))
def test_no_value_is_beyond_the_tail_and_tables_stay_small(sigma_e6: int) -> None:
    sampler = DiscreteGaussian(sigma_e6)
    ends = np.array([0, 2**64 - 1], np.uint64)
    reach = sum(factor * table.tail for factor, table in zip(_factors(sigma_e6, sampler), sampler.tables, strict=True))
    assert sampler.tail == largest_draw(sigma_e6) == reach
    assert all(np.abs(table.draw(ends)).max() <= table.tail for table in sampler.tables)
    assert sum(table.cumulative.nbytes for table in sampler.tables) < 700_000
    assert sampler.tail <= math.ceil(9.4 * (sigma_e6 / 1e6)) + 30_000 * (sigma_e6 > 1_024_000_000) + 1


def _factors(sigma_e6: int, sampler: DiscreteGaussian) -> list[int]:
    return [1] if len(sampler.tables) == 1 else [1, -(-sigma_e6 // (SINGLE_TABLE_SIGMA * 10**6))]


@pytest.mark.parametrize("sigma", [0.4, 1.0, 8.0, 64.0, 512.0, 3_000.0, 100_000.0])
def test_a_million_draws_pass_chi_square(sigma: float) -> None:
    values = draws(round(sigma * 1e6), 1_000_000)
    width = max(1, round(sigma / 16))  # bins of a sixteenth of a sigma
    reach = math.ceil(5 * sigma / width) * width + width // 2
    x = np.arange(-reach - width, reach + width + 1)
    probability = np.exp(-((x / sigma) ** 2) / 2)
    probability /= sum(
        math.exp(-((k / sigma) ** 2) / 2) for k in range(-math.ceil(12 * sigma), math.ceil(12 * sigma) + 1)
    )
    starts = np.arange(x[0], x[-1] + 1, width)
    expected = np.add.reduceat(probability, starts - x[0]) * values.size
    found = np.histogram(values, np.append(starts, starts[-1] + width))[0]
    kept = (expected >= 10) & (starts + width <= x[-1] + 1)
    rest = values.size - expected[kept].sum()
    statistic = float((((found - expected) ** 2) / np.where(kept, expected, 1))[kept].sum())
    freedom = int(kept.sum())
    if rest >= 10:
        statistic += (values.size - found[kept].sum() - rest) ** 2 / rest
    assert statistic < chi_square_limit(freedom)
    assert found[kept].sum() > 0.99 * values.size


@pytest.mark.parametrize("sigma", [0.7, 5.0, 40.0])
def test_the_draws_are_distributed_like_those_of_opendp(sigma: float) -> None:
    """Two samples; opendp's sampler is exact and draws from the system's generator."""
    dp = pytest.importorskip("opendp.prelude", reason="opendp is not installed: pip install 'bedside[dev]'")
    dp.enable_features("contrib")
    count = 20_000
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    theirs_of = dp.m.make_gaussian(domain, dp.l2_distance(T="f64"), scale=sigma)
    theirs = np.array(theirs_of([0] * count))
    ours = draws(round(sigma * 1e6), count)
    edges = np.unique(np.round(np.linspace(-3 * sigma, 3 * sigma, 25)))
    edges = np.concatenate([[-np.inf], edges - 0.5, [np.inf]])
    a, b = np.histogram(ours, edges)[0], np.histogram(theirs, edges)[0]
    both = a + b
    statistic = float(((a - b) ** 2 / np.where(both, both, 1)).sum())
    assert statistic < chi_square_limit(int((both > 0).sum()) - 1)


@pytest.mark.parametrize("sigma_e6", [0, MAX_NOISE_SIGMA * 10**6 + 1])
def test_a_sigma_that_no_table_holds_is_refused(sigma_e6: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        DiscreteGaussian(sigma_e6)
    assert caught.value.code == "noise-too-large"
