"""The mean, trimmed mean and median of cohorts: the same bits everywhere, and bounded by honest cohorts."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.learning.combiners import CohortPart, Combiner, CombinerKind, combiner_of
from bedside.core.learning.weighting import Weighting, mean_delta

F = np.float32
MEAN, TRIMMED, MEDIAN = CombinerKind.MEAN, CombinerKind.TRIMMED_MEAN, CombinerKind.MEDIAN
CAP = 100


def one_device_each(*values: float) -> list[CohortPart]:
    return [CohortPart({"w": np.array([value], F)}, 1, CAP) for value in values]


def combined(combiner: Combiner, *values: float) -> float:
    return float(combiner.combine(one_device_each(*values), Weighting.UNIFORM, CAP)["w"][0])


def random_cohorts(seed: int, count: int, size: int = 7) -> list[CohortPart]:
    rng = np.random.default_rng(seed)
    return [
        CohortPart(
            {"w": rng.standard_normal((size, 3)).astype(F), "b": np.array(rng.standard_normal(), F)},
            int(rng.integers(3, 9)),
            int(rng.integers(1, 500)),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("weighting", list(Weighting))
def test_the_mean_of_cohorts_is_the_mean_of_one_sum_over_all_devices(weighting):
    cohorts = random_cohorts(1, 4)
    whole = {name: sum(one.tensors[name] for one in cohorts[1:]) + cohorts[0].tensors[name] for name in ("w", "b")}
    contributors, examples = sum(one.contributors for one in cohorts), sum(one.examples for one in cohorts)
    wanted = mean_delta(whole, weighting, contributors, examples, CAP)
    got = Combiner().combine(cohorts, weighting, CAP)
    for name, array in wanted.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-6)
        assert got[name].dtype == F


def test_a_median_takes_the_middle_and_of_an_even_number_the_mean_of_the_middle_two():
    assert combined(Combiner(MEDIAN), 5, -100, 1) == 1
    assert combined(Combiner(MEDIAN), 5, -100, 1, 2) == 1.5
    assert combined(Combiner(MEDIAN), 1, 1, 9, 9, 1) == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 9), st.integers(0, 1 << 30), st.data())
def test_every_coordinate_is_what_sorting_and_adding_by_hand_gives(count, seed, data):
    trim = data.draw(st.integers(1, (count - 1) // 2))
    cohorts = random_cohorts(seed, count)
    means = [mean_delta(one.tensors, Weighting.EXAMPLES, one.contributors, one.examples, CAP) for one in cohorts]
    for combiner, cut in ((Combiner(TRIMMED, trim), trim), (Combiner(MEDIAN), (count - 1) // 2)):
        got = combiner.combine(cohorts, Weighting.EXAMPLES, CAP)["w"].reshape(-1)
        for at in range(got.size):
            kept = sorted(mean["w"].reshape(-1)[at] for mean in means)[cut : count - cut]
            total = kept[0]
            for value in kept[1:]:
                total = F(total + value)
            assert got[at] == F(total / F(len(kept)))


def test_a_trimmed_mean_leaves_out_the_lowest_and_highest_of_every_coordinate():
    assert combined(Combiner(TRIMMED, 1), 1e9, 1, 2, 6, -1e9) == 3
    assert combined(Combiner(TRIMMED, 2), 1e9, 1, 2, 6, -1e9) == 2
    cohorts = [CohortPart({"w": np.array(row, F)}, 1, 1) for row in ([0, 9], [1, 8], [50, -50])]
    np.testing.assert_array_equal(Combiner(TRIMMED, 1).combine(cohorts, Weighting.UNIFORM, 1)["w"], [1, 8])


def test_robust_combiners_count_cohorts_alike_and_the_mean_counts_examples():
    small, large = CohortPart({"w": F([10])}, 1, 10), CohortPart({"w": F([0])}, 9, 90)
    cohorts = [small, large, CohortPart({"w": F([40])}, 4, 40)]
    # means by examples with a cap of 1: 1, 0 and 1
    assert float(Combiner(MEDIAN).combine(cohorts, Weighting.EXAMPLES, 1)["w"][0]) == 1
    assert float(Combiner().combine(cohorts, Weighting.EXAMPLES, 1)["w"][0]) == pytest.approx(50 / 140)


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 9), st.integers(0, 1 << 30), st.floats(-(2.0**99), 2.0**99, width=32), st.data())
def test_fewer_than_half_of_the_cohorts_cannot_move_a_coordinate_beyond_the_honest_ones(count, seed, lie, data):
    attackers = data.draw(st.integers(1, (count - 1) // 2))
    honest = random_cohorts(seed, count - attackers)
    liars = [CohortPart({"w": np.full((7, 3), lie, F), "b": F(-lie)}, 1, 1) for _ in range(attackers)]
    means = [mean_delta(one.tensors, Weighting.UNIFORM, one.contributors, 0, CAP) for one in honest]
    for combiner in (Combiner(MEDIAN), Combiner(TRIMMED, attackers)):
        got = combiner.combine([*liars, *honest], Weighting.UNIFORM, CAP)
        for name in ("w", "b"):
            stack = np.stack([mean[name] for mean in means])
            assert (got[name] >= stack.min(axis=0) - 1e-6).all()
            assert (got[name] <= stack.max(axis=0) + 1e-6).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 9), st.integers(0, 1 << 30))
def test_the_order_of_cohorts_does_not_change_a_bit_of_the_robust_combiners(count, seed):
    cohorts = random_cohorts(seed, count)
    shuffled = [cohorts[at] for at in np.random.default_rng(seed).permutation(count)]
    for combiner in (Combiner(MEDIAN), Combiner(TRIMMED, 1)):
        one = combiner.combine(cohorts, Weighting.EXAMPLES, CAP)
        other = combiner.combine(shuffled, Weighting.EXAMPLES, CAP)
        assert one["w"].tobytes() == other["w"].tobytes()


def test_minus_zero_and_plus_zero_tie_to_plus_zero_in_any_order():
    for values in ((-0.0, 0.0, -0.0), (0.0, -0.0, -0.0), (-0.0, -0.0, -0.0)):
        assert np.copysign(1.0, combined(Combiner(MEDIAN), *values)) == 1.0


@pytest.mark.parametrize(
    ("combiner", "wanted"),
    [
        (Combiner(), "ef01c3b840b1d3c9"),
        (Combiner(TRIMMED, 1), "ae43b7b065c37c88"),
        (Combiner(MEDIAN), "f837532bcca9ec26"),
    ],
)
def test_the_bits_of_a_combined_delta_are_pinned(combiner, wanted):
    size = 100_003  # more than one chunk
    cohorts = [
        CohortPart({"w": (np.arange(size, dtype=np.int64) * (37 + 2 * at) % 1009 - 504).astype(F) / F(7)}, 3 + at, 50)
        for at in range(6)
    ]
    got = combiner.combine(cohorts, Weighting.UNIFORM, CAP)["w"]
    assert hashlib.blake2b(got.astype("<f4").tobytes(), digest_size=8).hexdigest() == wanted


@pytest.mark.parametrize(
    ("kind", "trim", "cohorts"),
    [(4, 0, 5), (1, 1, 5), (3, 1, 5), (2, 0, 5), (2, 1, 2), (2, 2, 4), (2, 3, 6), (3, 0, 2), (3, 0, 1), (9, 0, 1)],
)
def test_a_plan_with_an_impossible_combiner_is_refused(kind, trim, cohorts):
    with pytest.raises(MalformedError) as caught:
        combiner_of(kind, trim, cohorts)
    assert caught.value.code == "bad-combiner"
    assert caught.value.remedy


def test_the_bounds_of_a_plan_are_met_exactly():
    assert combiner_of(0, 0, 1) == Combiner(MEAN)
    assert combiner_of(1, 0, 1) == Combiner(MEAN)
    assert combiner_of(2, 1, 3) == Combiner(TRIMMED, 1)
    assert combiner_of(2, 2, 5) == Combiner(TRIMMED, 2)
    assert combiner_of(3, 0, 3) == Combiner(MEDIAN)


@pytest.mark.parametrize(("combiner", "opened"), [(Combiner(MEDIAN), 2), (Combiner(TRIMMED, 2), 4), (Combiner(), 0)])
def test_too_few_opened_cohorts_are_not_combined(combiner, opened):
    with pytest.raises(ProtocolError) as caught:
        combiner.combine(one_device_each(*[1.0] * opened), Weighting.UNIFORM, CAP)
    assert caught.value.code == "too-few-cohorts"
    assert str(opened) in caught.value.sentence


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_mean_without_an_order_is_refused(poison):
    with pytest.raises(ProtocolError) as caught:
        combined(Combiner(MEDIAN), 1, poison, 2)
    assert caught.value.code == "delta-not-finite"
