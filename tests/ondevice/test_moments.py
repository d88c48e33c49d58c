import numpy as np
import pytest

from bedside.core.bundle.layers import Dense, Flatten, Standardise, walk
from bedside.core.bundle.quantise import standard_affine
from bedside.ondevice.training.moments import own_moments

STEPS = walk((Standardise(), Flatten(), Dense(2)), (10, 3), 2)


@pytest.fixture
def windows():
    generator = np.random.default_rng(1)
    return (generator.normal(size=(40, 10, 3)) * [1, 5, 0.1] + [0, 100, -3]).astype(np.float32)


def test_windows_have_mean_0_and_variance_1_under_their_own_moments(windows):
    moments = own_moments(STEPS, np.array_split(windows, 7))
    factor, shift = standard_affine(moments["mean0"], moments["square0"])
    rows = (windows * factor + shift).reshape(-1, 3)
    assert np.abs(rows.mean(axis=0)).max() < 1e-3
    assert np.abs(rows.var(axis=0) - 1).max() < 0.01


def test_the_mean_of_moments_by_examples_is_the_moment_of_all(windows):
    parts = windows[:30], windows[30:]
    each = [own_moments(STEPS, [part]) for part in parts]
    for name, whole in own_moments(STEPS, [windows]).items():
        mean = sum(len(part) * own[name] for part, own in zip(parts, each, strict=True)) / len(windows)
        assert np.allclose(mean, whole, rtol=1e-5)


def test_a_net_that_does_not_standardise_and_a_device_without_examples_have_none(windows):
    plain = walk((Flatten(), Dense(2)), (10, 3), 2)
    assert own_moments(plain, [windows]) == own_moments(STEPS, []) == own_moments(STEPS, [windows[:0]]) == {}
