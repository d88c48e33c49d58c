"""A training that stopped goes on as if it had never stopped, to the bit, wherever it was."""

from dataclasses import replace

import msgspec
import pytest

from bedside.authoring.golden import synthetic_windows
from bedside.core.bundle.training import Augmentation
from bedside.core.errors import UnavailableError
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.position import Position, Saved
from bedside.ondevice.training.train import Schedule, train

SCHEDULE = Schedule(
    learning_rate=0.05, momentum=0.9, proximal_mu=0.1, batch=16, epochs=3, min_examples=16, min_steps=4, seed=1
)
PER_EPOCH = 6
"""Of 100 windows, four wait in each epoch for the next one."""


@pytest.fixture(scope="module")
def bundle(bundle):
    """It augments what it is trained on."""
    training = msgspec.structs.replace(bundle.manifest.training, augmentation=Augmentation(0.05, 0.1, 2, 0.5))
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, training=training))


@pytest.fixture(scope="module")
def examples(bundle):
    window = bundle.manifest.window
    return Windows(*synthetic_windows((window.length, window.channels), len(bundle.manifest.labels), 100, seed=12))


def outcome(trained):
    return {name: array.tobytes() for name, array in trained.state.items()}, trained.counts


@pytest.fixture(scope="module")
def whole(bundle, examples):
    """The outcome, and what could have been saved between any two batches."""
    boundaries = []
    keep = lambda between: boundaries.append((Saved(between.position, between.state()), between.steps_left))  # noqa: E731
    return outcome(train(bundle, bundle.parameters, examples, SCHEDULE, between=keep)), boundaries


def test_a_training_that_stopped_between_any_two_batches_ends_with_the_same_bits(bundle, examples, whole):
    expected, boundaries = whole
    assert len(boundaries) == 3 * PER_EPOCH + 2 * 2
    for saved, _ in boundaries:
        assert outcome(train(bundle, bundle.parameters, examples, SCHEDULE, saved=saved)) == expected, saved.position


def test_a_training_that_stops_after_every_batch_ends_with_the_same_bits(bundle, examples, whole):
    saved, epochs, stops = None, [], 0

    def stop(between):
        nonlocal saved
        saved = Saved(between.position, between.state())
        raise UnavailableError("stop", "")

    while saved is None or saved.position.judged_after < len(examples):
        with pytest.raises(UnavailableError):
            train(bundle, bundle.parameters, examples, SCHEDULE, epochs.append, saved=saved, between=stop)
        stops += 1
    assert stops == len(whole[1])
    assert outcome(train(bundle, bundle.parameters, examples, SCHEDULE, saved=saved)) == whole[0]


def test_what_is_still_to_come_is_known_between_two_steps(whole):
    assert [left for _, left in whole[1]] == [18, 18, *range(17, -1, -1), 0, 0]


def test_a_training_without_its_momentum_or_its_place_would_end_elsewhere(bundle, examples, whole):
    saved, _ = whole[1][7]
    lost = {name: array * 0 if name not in bundle.parameters else array for name, array in saved.state.items()}
    assert outcome(train(bundle, bundle.parameters, examples, SCHEDULE, saved=Saved(saved.position, lost))) != whole[0]
    early = Saved(Position(judged_before=100, step=2), saved.state)
    assert outcome(train(bundle, bundle.parameters, examples, SCHEDULE, saved=early))[0] != whole[0][0]
