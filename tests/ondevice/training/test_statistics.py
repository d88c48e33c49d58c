"""What windows without labels tell of the layers that normalise."""

import msgspec
import numpy as np
import pytest

from bedside.authoring.build import build_bundle
from bedside.core.bundle.training import TrainingGraph
from bedside.core.bundle.verify import verify_archive
from bedside.ondevice.refresh import float_runtime
from bedside.ondevice.training import statistics
from bedside.ondevice.training.statistics import own_names, own_statistics


@pytest.fixture
def windows():
    generator = np.random.default_rng(1)
    return (generator.normal(size=(200, 32, 2)) * [3, 0.5] + [5, -2]).astype(np.float32)


def made(tiny, author, *first, **changes):
    layers = (*first, tiny.layers[0], {"kind": "batchnorm"}, *tiny.layers[1:])
    built = build_bundle(msgspec.structs.replace(tiny, layers=layers, costs=(), **changes), author)
    return verify_archive(built.tar, [bytes(author.verify_key)])


@pytest.fixture(scope="module")
def bundle(tiny, author):
    return made(tiny, author, {"kind": "standardise"})


def test_moments_and_running_statistics_are_those_of_the_windows_and_nothing_else_moves(bundle, windows) -> None:
    own = own_statistics(bundle, bundle.parameters, windows)
    assert set(own) == own_names(bundle.manifest) == {"mean0", "square0", "mean1", "variance1"}
    rows = windows.reshape(-1, 2)
    assert own["mean0"] == pytest.approx(rows.mean(axis=0), rel=1e-4)
    scaled = ((rows - rows.mean(axis=0)) / rows.std(axis=0)).reshape(windows.shape)
    taps = np.stack([np.pad(scaled, ((0, 0), (1, 1), (0, 0)))[:, at : at + 32] for at in range(3)], axis=2)
    given = np.einsum("nltc,tcf->nlf", taps, bundle.parameters["w0"]) + bundle.parameters["b0"]
    assert own["mean1"] == pytest.approx(given.mean(axis=(0, 1)), abs=0.05)
    assert own["variance1"] == pytest.approx(given.var(axis=(0, 1)), rel=0.15)


def test_a_device_whose_signal_is_of_another_scale_gets_the_answers_of_one_whose_is_not(bundle, windows) -> None:
    def said(x):
        own = own_statistics(bundle, bundle.parameters, x)
        return float_runtime(bundle, {**bundle.parameters, **own}).predict(x)

    assert said(windows * np.float32(40) - np.float32(7)) == pytest.approx(said(windows), abs=0.01)


def test_what_is_shared_or_trained_is_not_taken_from_windows(tiny, author, windows) -> None:
    shared = made(tiny, author, {"kind": "standardise", "scope": "shared"})
    assert own_names(shared.manifest) == {"mean1", "variance1"}
    assert set(own_statistics(shared, shared.parameters, windows)) == {"mean1", "variance1"}


def test_a_norm_that_no_training_graph_reaches_stays_as_it_is(tiny, author, windows) -> None:
    head = made(tiny, author, {"kind": "standardise"}, graphs=(TrainingGraph("Q1", "head", "sgd"),))
    assert set(own_statistics(head, head.parameters, windows)) == {"mean0", "square0"} == own_names(head.manifest)


def test_a_device_without_onnxruntime_counts_moments_alone(bundle, windows, monkeypatch) -> None:
    monkeypatch.setattr(statistics, "is_installed", lambda _: False)
    assert set(own_statistics(bundle, bundle.parameters, windows)) == {"mean0", "square0"} == own_names(bundle.manifest)
