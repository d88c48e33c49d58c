"""Two models on the same windows: worse only where that is more than chance."""

from __future__ import annotations

import math

import numpy as np

from bedside.agent.serving.paired import MIN_BLOCKS, compare, right


def blocks(windows: int, each: int) -> list[tuple[str, int]]:
    return [("s", at // each) for at in range(windows)]


def test_a_window_is_right_where_its_most_probable_class_is_its_label() -> None:
    said = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]], np.float32)
    assert right(said, np.array([1, 1, 1])).tolist() == [1.0, 0.0, 1.0]


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
