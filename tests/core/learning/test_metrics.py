"""Metrics of sums equal the metrics of the pooled windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.learning.metrics import (
    accuracy,
    count_confusion,
    count_correct,
    count_reliability,
    expected_calibration_error,
    macro_f1,
    sensitivity,
    spread_windows,
)

CLASSES = 4
windows = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), max_size=30)
fleets = st.lists(windows, min_size=1, max_size=5)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@settings(deadline=None)
@given(fleets)
def test_summed_counts_give_the_figures_of_the_pooled_windows(fleet: list[list[tuple[int, int]]]) -> None:
    pooled = [pair for device in fleet for pair in device]
    confusion = sum(count_confusion(*columns(device), CLASSES) for device in fleet)
    correct_total = sum(count_correct(*columns(device)) for device in fleet)
    assert isinstance(confusion, np.ndarray)
    assert isinstance(correct_total, np.ndarray)
    f1_of_present = []
    for label in range(CLASSES):
        hits = sum(truth == label == guess for truth, guess in pooled)
        positives = sum(truth == label for truth, _ in pooled)
        guesses = sum(guess == label for _, guess in pooled)
        rate = float(sensitivity(confusion)[label])
        assert math.isnan(rate) if not positives else rate == pytest.approx(hits / positives)
        if positives + guesses:
            f1_of_present.append(2 * hits / (positives + guesses))
    if not pooled:
        assert math.isnan(accuracy(correct_total))
        assert math.isnan(macro_f1(confusion))
        return
    assert accuracy(correct_total) == pytest.approx(np.mean([truth == guess for truth, guess in pooled]))
    assert macro_f1(confusion) == pytest.approx(np.mean(f1_of_present))


def test_macro_f1_does_not_follow_the_majority_class() -> None:
    truth = np.array([0] * 89 + [1] * 11)
    confusion = count_confusion(truth, np.zeros(100, np.int64), 2)
    assert accuracy(count_correct(truth, np.zeros(100, np.int64))) == 0.89
    assert macro_f1(confusion) == pytest.approx(0.4709, abs=1e-4)
    assert sensitivity(confusion).tolist() == [1.0, 0.0]


def test_a_model_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    confidence = np.repeat([0.25, 0.75], 400)
    correct = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 != 0])
    assert expected_calibration_error(count_reliability(confidence, correct)) == pytest.approx(0.0, abs=1e-12)


def test_a_model_always_sure_and_half_right_is_off_by_a_half() -> None:
    table = count_reliability(np.ones(10, np.float32), np.arange(10) % 2 == 0)
    assert table.tolist() == [[0] * 9 + [10], [0] * 9 + [5], [0] * 9 + [10_000]]
    assert expected_calibration_error(table) == 0.5


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=40), st.integers(0, 40))
def test_calibration_of_two_devices_is_that_of_their_pooled_windows(pairs: list[tuple[float, bool]], cut: int) -> None:
    confidence = np.array([pair[0] for pair in pairs], np.float64)
    correct = np.array([pair[1] for pair in pairs])
    summed = count_reliability(confidence[:cut], correct[:cut]) + count_reliability(confidence[cut:], correct[cut:])
    np.testing.assert_array_equal(summed, count_reliability(confidence, correct))
    expected = 0.0
    bins = np.minimum((confidence * 10).astype(int), 9)
    for place in set(bins.tolist()):
        inside = bins == place
        expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(summed) == pytest.approx(expected, abs=0.5 / 1_000 + 1e-9)


def test_noise_below_zero_reads_as_nothing() -> None:
    assert accuracy(np.array([-3, 10])) == 0.0
    assert math.isnan(accuracy(np.array([1, -2])))
    assert sensitivity(np.array([[5, -1], [0, 0]]))[0] == 1.0
    assert math.isnan(expected_calibration_error(np.full((3, 10), -1)))


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 200))
def test_windows_under_a_cap_are_distinct_in_order_and_spread(available: int, most: int) -> None:
    chosen = spread_windows(available, most).tolist()
    assert len(chosen) == min(available, most)
    assert chosen == sorted(set(chosen))
    assert not chosen or (chosen[0] == 0 and chosen[-1] < available)
    steps = np.diff(chosen)
    assert not steps.size or steps.max() - steps.min() <= 1


def test_labels_and_confidences_out_of_range_are_bugs_of_the_caller() -> None:
    for truth in ([4], [-1]):
        with pytest.raises(ValueError, match="label"):
            count_confusion(np.array(truth), np.array([0]), CLASSES)
    with pytest.raises(ValueError, match="length"):
        count_correct(np.array([1, 2]), np.array([1]))
    for confidence in ([1.5], [-0.1], [np.nan]):
        with pytest.raises(ValueError, match="confidence"):
            count_reliability(np.array(confidence), np.array([True]))
