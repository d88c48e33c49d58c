"""Stochastic rounding: bounds, exactness of whole numbers, no bias."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.codec.rotation import FloatArray
from bedside.core.codec.rounding import FRACTION, Rounder

KEY = bytes(range(32))


def rounded(steps: FloatArray, half_levels: int, key: bytes = KEY) -> np.ndarray:
    out = np.empty(steps.size, np.uint16)
    Rounder(key, 0, half_levels).round(steps * np.float32(FRACTION), out)
    return out.astype(np.int64) - half_levels


@settings(deadline=None)
@given(
    st.sampled_from([1, 3, 7, 31, 127]),
    st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=50),
    st.binary(min_size=32, max_size=32),
)
def test_a_word_is_within_one_step_of_the_clamped_value(half_levels: int, values: list[float], key: bytes) -> None:
    steps = np.array(values, np.float32)
    words = rounded(steps, half_levels, key)
    clamped = np.clip(steps, -half_levels, half_levels)
    assert np.abs(words).max() <= half_levels
    assert np.abs(words - clamped).max() < 1.0 + 1 / FRACTION


@settings(deadline=None)
@given(st.lists(st.integers(-127, 127), min_size=1, max_size=50), st.binary(min_size=32, max_size=32))
def test_whole_numbers_are_kept_exactly(values: list[int], key: bytes) -> None:
    assert rounded(np.array(values, np.float32), 127, key).tolist() == values


@pytest.mark.parametrize("value", [-126.75, -3.5, -0.1, 0.0, 0.001, 0.5, 2.9, 99.3])
def test_rounding_has_no_bias(value: float) -> None:
    count = 60_000
    words = rounded(np.full(count, value, np.float32), 127)
    fraction = value - np.floor(value)
    deviation = np.sqrt(fraction * (1 - fraction) / count)
    assert abs(float(words.mean()) - value) <= 4.5 * deviation + 1 / FRACTION


def test_other_keys_round_otherwise_and_the_same_key_the_same() -> None:
    steps = np.full(1_000, 0.5, np.float32)
    first = rounded(steps, 127)
    np.testing.assert_array_equal(first, rounded(steps, 127))
    differing = np.count_nonzero(first != rounded(steps, 127, bytes(32)))
    assert 400 < differing < 600
