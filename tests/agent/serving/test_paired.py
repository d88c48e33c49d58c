"""Two models on the same windows: worse only where that is more than chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bedside.agent.serving.paired import MIN_BLOCKS, balanced, balanced_labels, compare, explained
from bedside.core.bundle.manifest import Targets
from bedside.ondevice.training.scoring import ValueScore


def blocks(windows: int, each: int) -> list[tuple[str, int]]:
    return [("s", at // each) for at in range(windows)]


def test_every_class_counts_alike_however_rare_it_is() -> None:
    truth = np.array([0] * 9 + [1])
    lazy = np.tile(np.array([[2.0, 1.0]], np.float32), (10, 1))
    assert balanced(lazy, truth).mean() == pytest.approx(0.5)
    assert balanced(lazy[:, ::-1], truth).mean() == pytest.approx(0.5)
    assert balanced(np.eye(2, dtype=np.float32)[truth], truth).mean() == pytest.approx(1.0)


def test_labels_count_alike_and_so_do_their_two_sides() -> None:
    truth = np.array([[1, 0]] * 2 + [[0, 0]] * 6, np.float32)
    silent = np.full((8, 2), -1.0, np.float32)
    assert balanced_labels(silent, truth).mean() == pytest.approx(0.75)  # half of the first, all of the second
    assert balanced_labels(np.where(truth > 0, 1, -1).astype(np.float32), truth).mean() == pytest.approx(1.0)


def test_values_are_scored_by_the_variation_that_they_explain() -> None:
    truth = np.random.default_rng(5).standard_normal((200, 2)).astype(np.float32)
    score = ValueScore(Targets(unit=("mm[Hg]", "Cel"), offset=(0.0, 0.0), scale=(1.0, 1.0)))
    near = truth + np.float32(0.3)
    score.add(near, truth)
    assert explained(near, truth).mean() == pytest.approx(score.merit)
    constant = np.ones((4, 1), np.float32)
    assert explained(constant, constant).tolist() == [1.0] * 4
    assert explained(constant * 2, constant).tolist() == [0.0] * 4


def test_the_same_answers_are_no_worse() -> None:
    scores = np.random.default_rng(0).integers(0, 2, 200).astype(float)
    found = compare(scores, scores, blocks(200, 10))
    assert (found.windows, found.blocks, found.old, found.surely_worse) == (200, 20, scores.mean(), 0.0)


def test_a_model_that_is_worse_everywhere_is_surely_worse() -> None:
    random = np.random.default_rng(1)
    old = np.ones(400)
    new = (random.random(400) > 0.3).astype(float)
    found = compare(old, new, blocks(400, 10))
    assert 0.2 < found.surely_worse < 1 - found.new


def test_windows_that_stand_together_prove_less_than_their_number() -> None:
    """One stretch of time in ten goes wrong: as windows these are many, as stretches one."""
    old, new = np.ones(500), np.ones(500)
    new[:50] = 0
    assert compare(old, new, blocks(500, 50)).surely_worse < 0
    assert compare(old, new, blocks(500, 1)).surely_worse > 0.05


def test_a_single_stretch_proves_nothing() -> None:
    assert compare(np.ones(90), np.zeros(90), blocks(90, 90)).surely_worse == -math.inf


def test_a_model_that_is_no_worse_is_seldom_thought_so() -> None:
    """At a margin of nothing the bound of 95 % errs in about one case of twenty."""
    random = np.random.default_rng(2)
    wrong = 0
    for _ in range(600):
        truth = np.repeat(random.random(12) > 0.2, 10)  # what a stretch does to one model it does to the other
        old, new = (np.where(random.random(120) > 0.1, truth, ~truth).astype(float) for _ in range(2))
        wrong += compare(old, new, blocks(120, 10)).surely_worse > 0
    assert wrong / 600 < 0.08
    assert MIN_BLOCKS <= 12
