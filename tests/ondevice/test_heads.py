"""What logits say, by task."""

from __future__ import annotations

import numpy as np
import pytest

from bedside.core.bundle.manifest import Targets
from bedside.ondevice.heads import Head

LOGITS = np.array([[2.0, -1.0], [-800.0, 800.0]], np.float32)


def test_classes_share_one_probability_and_labels_have_one_each() -> None:
    classes = Head("classification", ("a", "b")).answers(LOGITS)
    labels = Head("multilabel", ("a", "b")).answers(LOGITS)
    assert classes == pytest.approx(np.array([[1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))], [0, 1]]))
    assert labels == pytest.approx(np.array([[1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))], [0, 1]]))
    assert classes.dtype == labels.dtype == np.float32


def test_values_come_in_their_units() -> None:
    head = Head("regression", ("po2", "ratio"), Targets(("kPa", ""), (10.0, 0.5), (0.5, 4.0)))
    assert head.answers(LOGITS[:1]).tolist() == [[14.0, 0.25]]
    assert head.units == ("kPa", "1")


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_temperature_divides_the_logits(task: str) -> None:
    warm = Head(task, ("a", "b"), temperature=2.0).answers(LOGITS)
    assert warm.tolist() == Head(task, ("a", "b")).answers(LOGITS / 2).tolist()
