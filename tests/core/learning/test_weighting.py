"""Both halves of the weights give the mean that FedAvg defines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import ProtocolError
from bedside.core.learning.weighting import Weighting, contribution_weight, counted_examples, mean_delta

F = np.float32
devices = st.lists(st.tuples(st.integers(1, 2_000), st.floats(-10, 10, width=32)), min_size=1, max_size=10)


@settings(deadline=None)
@given(devices, st.integers(1, 1_000))
def test_examples_give_the_weighted_mean_with_examples_capped(fleet: list[tuple[int, float]], cap: int) -> None:
    summed = np.zeros(1, F)
    counted = 0
    for examples, value in fleet:
        summed += np.array([value], F) * F(contribution_weight(Weighting.EXAMPLES, examples, cap))
        counted += counted_examples(examples, cap)
    mean = mean_delta({"w": summed}, Weighting.EXAMPLES, len(fleet), counted, cap)["w"]
    weights = [min(examples, cap) for examples, _ in fleet]
    expected = np.average([value for _, value in fleet], weights=weights)
    assert mean.dtype == F
    assert float(mean[0]) == pytest.approx(expected, abs=1e-4)


@settings(deadline=None)
@given(devices)
def test_uniform_gives_the_plain_mean_whatever_the_examples(fleet: list[tuple[int, float]]) -> None:
    parts = [np.array([v], F) * F(contribution_weight(Weighting.UNIFORM, n, 7)) for n, v in fleet]
    mean = mean_delta({"w": np.sum(parts, axis=0, dtype=F)}, Weighting.UNIFORM, len(fleet), 0, 0)["w"]
    assert float(mean[0]) == pytest.approx(np.mean([value for _, value in fleet]), abs=1e-5)


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_a_weight_never_makes_a_delta_longer(examples: int, cap: int) -> None:
    weighed = np.ones(3, F) * F(contribution_weight(Weighting.EXAMPLES, examples, cap))
    assert 0 < float(weighed.max()) <= 1


def test_nobody_or_nothing_has_no_mean() -> None:
    summed = {"w": np.ones(1, F)}
    for weighting, contributors, examples in [
        (Weighting.UNIFORM, 0, 5),
        (Weighting.EXAMPLES, 3, 0),
        (Weighting.EXAMPLES, 3, -2),
    ]:
        with pytest.raises(ProtocolError) as caught:
            mean_delta(summed, weighting, contributors, examples, 10)
        assert caught.value.code == "no-examples"
    with pytest.raises(ProtocolError):
        contribution_weight(Weighting.EXAMPLES, 0, 10)
