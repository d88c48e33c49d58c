"""Batches: how often classes are drawn, and what is done to windows."""

from __future__ import annotations

import numpy as np
import pytest

from bedside.core.bundle.training import Augmentation
from bedside.ondevice.training.augment import Augmenter

Y = np.repeat(np.arange(3), (900, 90, 10))
X = np.random.default_rng(1).normal(size=(64, 20, 3)).astype(np.float32)


def drawn(balance: float, y: np.ndarray = Y, task: str = "classification") -> np.ndarray:
    return Augmenter(task, Augmentation(balance=balance), y, 7).next_order()


def test_without_balance_an_epoch_is_a_permutation_as_it_was_before_there_was_one() -> None:
    augmenter, plain = Augmenter("classification", None, Y, 7), np.random.default_rng(7)
    for _ in range(3):
        assert augmenter.next_order().tolist() == plain.permutation(1000).tolist()


@pytest.mark.parametrize(("balance", "expected"), [(0.0, (900, 90, 10)), (0.5, (709, 224, 75)), (1.0, (333, 334, 333))])
def test_classes_are_drawn_by_a_power_of_their_share(balance, expected) -> None:
    order = drawn(balance)
    assert len(order) == len(Y)
    assert np.bincount(Y[order]) == pytest.approx(expected, abs=9)


def test_every_rare_example_is_drawn_as_often_as_the_others_of_its_class() -> None:
    times = np.bincount(drawn(1.0), minlength=1000)
    assert set(times[990:]) == {33, 34}
    assert times[:900].max() == 1


def test_labels_are_drawn_by_their_rarest_one_and_values_as_they_are() -> None:
    labels = np.zeros((1000, 2), np.float32)
    labels[:500, 0] = 1
    labels[495:500, 1] = 1
    order = drawn(1.0, labels, "multilabel")
    assert labels[order, 1].mean() == pytest.approx(1 / 3, abs=0.01)
    values = labels.copy()
    assert sorted(drawn(1.0, values, "regression")) == list(range(1000))


@pytest.mark.parametrize(
    "asked", [Augmentation(noise=0.1), Augmentation(scale=0.2), Augmentation(shift=3), Augmentation(0.1, 0.2, 3)]
)
def test_a_batch_is_the_same_when_it_comes_again_and_no_other_is(asked) -> None:
    first = Augmenter("classification", asked, Y, 7)
    again = Augmenter("classification", asked, Y, 7)
    batch = first.augmented(X, 2, 5)
    assert batch.tobytes() == again.augmented(X, 2, 5).tobytes()
    others = [
        first.augmented(X, 2, 6),
        first.augmented(X, 3, 5),
        Augmenter("regression", asked, Y, 8).augmented(X, 2, 5),
    ]
    assert len({batch.tobytes(), X.tobytes(), *(other.tobytes() for other in others)}) == 5
    assert (batch.dtype, batch.shape) == (np.float32, X.shape)


def test_noise_scale_and_shift_are_of_the_size_that_was_asked() -> None:
    noise = Augmenter("classification", Augmentation(noise=0.1), Y, 7).augmented(X, 1, 0) - X
    assert noise.std() == pytest.approx(0.1, rel=0.05)
    factors = Augmenter("classification", Augmentation(scale=0.2), Y, 7).augmented(X, 1, 0) / X
    assert np.ptp(factors, axis=1).max() < 1e-4, "one factor for a channel of a window"
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[:, np.newaxis], (64, 20, 1))
    moved = Augmenter("classification", Augmentation(shift=3), Y, 7).augmented(ramp, 1, 0)[:, :, 0]
    assert {int(row[10]) - 10 for row in moved} == set(range(-3, 4))
    assert {row[0] for row in moved} == {0.0, 1.0, 2.0, 3.0}, "the edge value fills the gap"


def test_nothing_asked_is_nothing_done() -> None:
    assert Augmenter("classification", Augmentation(balance=1.0), Y, 7).augmented(X, 1, 0) is X
