"""Scores: sums of batches are those of the whole, and right is what the task calls right."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from bedside.core.bundle.manifest import Targets
from bedside.ondevice.training.scoring import ClassScore, LabelScore, Score, Truth, ValueScore, check_truth
from tiny_manifest import make_manifest

TARGETS = Targets(("kPa", "mm[Hg]"), (5.0, 60.0), (0.5, 0.1))


def _examples(task: str, count: int = 101) -> tuple[np.ndarray, Truth]:
    random = np.random.default_rng(7)
    logits = random.normal(0, 2, (count, 2 if task == "regression" else 3)).astype(np.float32)
    if task == "classification":
        return logits, random.integers(0, 3, count)
    if task == "multilabel":
        return logits, (random.random((count, 3)) < 0.3).astype(np.float32)
    return logits, (logits * 0.8 + random.normal(0, 0.3, logits.shape)).astype(np.float32)


def _new(task: str) -> Score:
    return {
        "classification": lambda: ClassScore(3),
        "multilabel": lambda: LabelScore(3),
        "regression": lambda: ValueScore(TARGETS),
    }[task]()


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_batches_add_up_to_the_whole(task: str) -> None:
    logits, y = _examples(task)
    whole, parts = _new(task), _new(task)
    whole.add(logits, y)
    for first in range(0, len(y), 17):
        parts.add(logits[first : first + 17], y[first : first + 17])
    assert (parts.examples, parts.correct) == (101, whole.correct)
    assert 0 < whole.correct <= 101
    assert parts.figures() == pytest.approx(whole.figures())


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_one_more_example_changes_the_count_of_right_ones_by_one_at_most(task: str) -> None:
    logits, y = _examples(task)
    score, before = _new(task), 0
    for place in range(len(y)):
        score.add(logits[place : place + 1], y[place : place + 1])
        assert before <= score.correct <= before + 1
        before = score.correct


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_no_example_has_no_figures(task: str) -> None:
    score = _new(task)
    assert score.correct == 0
    assert all(math.isnan(value) for value in score.figures().values())


def test_classes_are_scored_as_by_hand() -> None:
    score = ClassScore(2)
    score.add(np.array([[2, 0], [0, 1], [3, 1]], np.float32), np.array([0, 1, 1]))
    assert score.correct == 2
    losses = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(2))]
    assert score.figures() == pytest.approx({"accuracy": 2 / 3, "macro_f1": 2 / 3, "loss": sum(losses) / 3})


def test_labels_are_scored_as_by_hand_and_an_unused_one_counts_for_nothing() -> None:
    score = LabelScore(3)
    logits = np.array([[1, -1, -1], [1, 1, -1], [-1, -1, -1]], np.float32)
    score.add(logits, np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32))
    assert score.correct == 2
    low, high = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    expected = {"exact_match": 2 / 3, "label_accuracy": 8 / 9, "macro_f1": 0.5, "loss": (8 * low + high) / 9}
    assert score.figures() == pytest.approx(expected)


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4, 0]], np.float32)
    classes, labels = ClassScore(3), LabelScore(3)
    classes.add(logits, np.array([1]))
    labels.add(logits, np.array([[0, 1, 1]], np.float32))
    assert classes.figures()["loss"] == pytest.approx(2e4)
    assert labels.figures()["loss"] == pytest.approx((2e4 + math.log(2)) / 3)


def test_values_are_scored_in_their_units_and_held_against_the_offset() -> None:
    score = ValueScore(TARGETS)
    truth = np.array([[1, 0], [-1, 2], [0, -1]], np.float32)
    score.add(truth + np.array([[0.5, 0], [0.5, 0], [0.5, 2]], np.float32), truth)
    found = score.figures()
    assert score.correct == 2, "the third is worse than saying the offset"
    assert found["mae_0"] == pytest.approx(1.0), "0.5 of the scaled value is 1 kPa"
    assert found["rmse_1"] == pytest.approx(math.sqrt(4 / 3) / 0.1)
    assert found["r2"] == pytest.approx((1 - 0.75 / 2 + 1 - 4 / (5 - 1 / 3)) / 2)


def test_a_constant_target_explains_all_or_nothing() -> None:
    exact, wrong = ValueScore(TARGETS), ValueScore(TARGETS)
    truth = np.ones((4, 2), np.float32)
    exact.add(truth, truth)
    wrong.add(truth + 1, truth)
    assert (exact.merit, wrong.merit) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("task", "y", "why"),
    [
        ("classification", np.array([0, 3]), "unknown"),
        ("classification", np.zeros((2, 3), np.float32), "do not fit"),
        ("multilabel", np.array([[0, 1, 0.5]], np.float32), "neither"),
        ("multilabel", np.zeros((2, 2), np.float32), "3 outputs"),
        ("regression", np.array([[0, np.nan, 0]], np.float32), "finite"),
        ("regression", np.zeros(2, np.int64), "do not fit"),
    ],
)
def test_what_does_not_fit_the_task_is_named(task: str, y: Truth, why: str) -> None:
    manifest = msgspec.structs.replace(make_manifest(), task=task, labels=("a", "b", "c"))
    assert why in check_truth(manifest, y)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_what_fits_the_task_is_taken(task: str) -> None:
    logits, y = _examples(task)
    manifest = msgspec.structs.replace(make_manifest(), task=task, labels=("a", "b", "c")[: logits.shape[1]])
    assert not check_truth(manifest, y)
