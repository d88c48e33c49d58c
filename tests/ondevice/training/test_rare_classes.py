"""A class that is one window in forty is found more often when it is drawn as often as the others."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from bedside.core.bundle.training import Augmentation
from bedside.core.learning.metrics import macro_f1, sensitivity
from bedside.ondevice.refresh import float_runtime
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.scoring import ClassScore
from bedside.ondevice.training.train import Schedule, train

SCHEDULE = Schedule(
    learning_rate=0.02, momentum=0.9, proximal_mu=0.0, batch=16, epochs=3, min_examples=1, min_steps=1, seed=5
)
RARE = 2


def waves(counts: tuple[int, ...], seed: int) -> Windows:
    """Three paces in noise; the third one lies near the second."""
    random = np.random.default_rng(seed)
    y = random.permutation(np.repeat(np.arange(3), counts)).astype(np.int64)
    pace = np.array([0.15, 0.55, 0.75])[y][:, np.newaxis]
    angle = pace * np.arange(32) + random.uniform(0, 6.28, (len(y), 1))
    x = np.stack([np.sin(angle), np.cos(angle)], axis=2) + random.normal(0, 0.6, (len(y), 32, 2))
    return Windows(x.astype(np.float32), y)


def scored(bundle, augmentation: Augmentation | None) -> ClassScore:
    training = msgspec.structs.replace(bundle.manifest.training, augmentation=augmentation)
    asked = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, training=training))
    trained = train(asked, bundle.parameters, waves((500, 500, 25), 1), SCHEDULE)
    score, held_out = ClassScore(3), waves((100, 100, 100), 2)
    score.add(float_runtime(bundle, trained.state).predict(held_out.x), held_out.y)
    return score


@pytest.mark.parametrize("augmentation", [Augmentation(balance=1.0), Augmentation(0.2, 0.1, 3, 1.0)])
def test_a_rare_class_is_found_more_often_when_it_is_drawn_as_often(bundle, augmentation) -> None:
    plain, balanced = scored(bundle, None), scored(bundle, augmentation)
    before, after = sensitivity(plain.confusion)[RARE], sensitivity(balanced.confusion)[RARE]
    print(
        f"sensitivity {before:.2f} -> {after:.2f}, {macro_f1(plain.confusion):.2f} {macro_f1(balanced.confusion):.2f}"
    )
    assert after > before + 0.3
    assert macro_f1(balanced.confusion) > macro_f1(plain.confusion)
