import msgspec
import numpy as np
import pytest

from bedside.authoring.build import build_bundle
from bedside.authoring.golden import synthetic_windows
from bedside.core.bundle.layers import Dense, Flatten, Standardise, walk
from bedside.core.bundle.quantise import standard_affine
from bedside.core.bundle.training import TrainingGraph
from bedside.core.bundle.verify import verify_archive
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.moments import own_moments
from bedside.ondevice.training.train import Schedule, train

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


def standardising(tiny, author, scope):
    layers = ({"kind": "standardise", "scope": scope}, *tiny.layers)
    built = build_bundle(msgspec.structs.replace(tiny, layers=layers), author)
    return verify_archive(built.tar, [bytes(author.verify_key)])


@pytest.fixture
def examples():
    x, y = synthetic_windows((32, 2), 3, 48, seed=3)
    return Windows((x * [3, 0.5] + [5, -2]).astype(np.float32), y)


def learn(bundle, examples, graph):
    schedule = Schedule(0.02, 0.9, 0.0, 8, 3, 1, 1, 1, suffix=graph.suffix)
    return train(bundle, bundle.parameters, examples, schedule)


WHOLE, HEAD = (TrainingGraph("Q1", suffix, "sgd") for suffix in ("all", "head"))


def test_local_moments_are_trained_with_and_stay(tiny, author, examples):
    bundle = standardising(tiny, author, "local")
    trained = learn(bundle, examples, WHOLE)
    own = own_moments(bundle.manifest.steps(), [examples.x])
    assert {name: array.tobytes() for name, array in own.items()} == {
        name: trained.state[name].tobytes() for name in own
    }
    assert own.keys().isdisjoint(trained.delta)
    assert trained.counts.loss_after < trained.counts.loss_before


def test_shared_moments_travel_while_everybody_trains_with_those_of_the_round(tiny, author, examples):
    bundle = standardising(tiny, author, "shared")
    trained = learn(bundle, examples, WHOLE)
    for name, own in own_moments(bundle.manifest.steps(), [examples.x]).items():
        assert trained.state[name].tobytes() == bundle.parameters[name].tobytes()
        assert np.allclose(bundle.parameters[name] + trained.delta[name], own, rtol=1e-5)


def test_a_suffix_without_the_first_layer_leaves_the_moments_alone(tiny, author, examples):
    bundle = standardising(tiny, author, "local")
    trained = learn(bundle, examples, HEAD)
    for name in own_moments(bundle.manifest.steps(), [examples.x]):
        assert trained.state[name].tobytes() == bundle.parameters[name].tobytes()
