"""What training does to windows before each use, and how often it draws which: pure numpy, from seeded generators.

Nothing here touches a window that is predicted, scored or evaluated. Every batch has a generator of its own, named by
seed, epoch and number, so that a training that was stopped goes on with the same batches.

Sources: Um et al. 2017, "Data augmentation of wearable sensor data" (jittering, scaling, shifting); Mahajan et al.
2018, "Exploring the limits of weakly supervised pretraining", section 2.2 (drawing classes by a power of their share).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.training import Augmentation, Task
from bedside.ondevice.training.scoring import Float32, Truth

Int64 = npt.NDArray[np.int64]
_NONE: Final = Augmentation()


class Augmenter:
    """Draws the batches of one training."""

    def __init__(self, task: Task, augmentation: Augmentation | None, y: Truth, seed: int) -> None:
        """Prepare.

        Args:
            task: of the model.
            augmentation: of its manifest; None for none.
            y: what the examples are labelled with.
            seed: of the schedule.
        """
        self._its = augmentation or _NONE
        self._seed = seed
        self._shuffles = np.random.default_rng(seed)
        self._count = len(y)
        self._groups = _groups(task, y) if self._its.balance > 0 else []

    def next_order(self) -> Int64:
        """The numbers of the next epoch's examples, as many as there are examples; call it once for every epoch.

        Without balance it is a permutation. With it, a class takes the part of the epoch that its share to the power
        1 - balance gives it: its examples come in a shuffled order, again where it has too few, and not all where it
        has too many.
        """
        if len(self._groups) < 2:
            return self._shuffles.permutation(self._count)
        shares = np.array([len(group) for group in self._groups]) / self._count
        wanted = shares ** (1 - self._its.balance)
        ends = np.rint(np.cumsum(wanted / wanted.sum()) * self._count).astype(np.int64)
        drawn = [
            _cycled(group, count, self._shuffles)
            for group, count in zip(self._groups, np.diff(ends, prepend=0).tolist(), strict=True)
        ]
        return self._shuffles.permutation(np.concatenate(drawn))

    def augmented(self, x: Float32, epoch: int, number: int) -> Float32:
        """Windows (n, L, C) as training sees them in batch `number` of an epoch; `x` itself where nothing is asked."""
        its = self._its
        if not (its.noise or its.scale or its.shift):
            return x
        random = np.random.default_rng((self._seed, epoch, number))
        count, length, channels = x.shape
        if its.shift:
            moved = random.integers(-its.shift, its.shift + 1, (count, 1))
            places = np.clip(np.arange(length) - moved, 0, length - 1)
            x = np.take_along_axis(x, places[:, :, np.newaxis], axis=1)
        if its.scale:
            x = x * random.uniform(1 - its.scale, 1 + its.scale, (count, 1, channels)).astype(np.float32)
        if its.noise:
            x = x + random.standard_normal(x.shape, np.float32) * np.float32(its.noise)
        return x


def _groups(task: Task, y: Truth) -> list[Int64]:
    """Numbers of the examples of each class; of several labels by the rarest one that holds, or by none of them.

    Values have no classes.
    """
    if task == "classification":
        return [np.flatnonzero(y == label) for label in np.unique(y)]
    if task == "regression":
        return []
    commonness = np.where(y > 0, y.sum(axis=0), np.inf)
    rarest = np.where((y > 0).any(axis=1), commonness.argmin(axis=1), -1)
    return [np.flatnonzero(rarest == label) for label in np.unique(rarest)]


def _cycled(group: Int64, count: int, random: np.random.Generator) -> Int64:
    """So many members of a group: none comes a second time before all have come once."""
    rounds = [random.permutation(group) for _ in range(-(-count // len(group)))]
    return np.concatenate([np.empty(0, np.int64), *rounds])[:count]
