"""How well a model's outputs fit its examples: sums that grow batch by batch, and figures of them, by task.

A score has the model's logits added to it and never an example, so that a set larger than memory can be scored. Its
`merit` is the one figure that is higher for the better model whatever the task. A device's gate does not go by it: it
compares two models window by window.

Source: Sokolova and Lapalme 2009, "A systematic analysis of performance measures for classification tasks" (tables 3
and 5: macro-averaged F1, exact match).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.manifest import Manifest, Targets
from bedside.core.learning.metrics import count_confusion, macro_f1

Float32 = npt.NDArray[np.float32]
Truth = npt.NDArray[np.int64] | Float32
"""What examples are labelled with: (n,) int64 classes; (n, outputs) float32: 1 and 0 for labels that hold or do not,
scaled values of a regression."""

SCORING_BATCH: Final = 64
"""Examples that a model predicts at once while it is scored."""


class Score(Protocol):
    """What was seen so far. Figures of no example are NaN."""

    examples: int
    loss_sum: float

    @property
    def correct(self) -> int:
        """Of `examples`, those that count as right; what a plan's count `correct` sums.

        Adding or removing one example changes it by one at most.
        """

    @property
    def merit(self) -> float:
        """The task's main figure: accuracy, macro-F1 of the labels, or the share of variation explained (R^2)."""

    def add(self, logits: Float32, y: Truth) -> None:
        """Take the logits (n, outputs) of n examples, and what they are labelled with."""

    def figures(self) -> Mapping[str, float]:
        """Every figure of the task by name, `loss` among them: the mean per example, without class weights."""


class ClassScore:
    """Exclusive classes: right is an example whose most probable class is its own."""

    def __init__(self, classes: int) -> None:
        self.examples = 0
        self.loss_sum = 0.0
        self.confusion = np.zeros((classes, classes), np.int64)
        """Truth by prediction."""

    @property
    def correct(self) -> int:
        """Examples of which the class was found."""
        return int(np.trace(self.confusion))

    @property
    def merit(self) -> float:
        """Accuracy."""
        return _share(self.correct, self.examples)

    def add(self, logits: Float32, y: Truth) -> None:
        """Add to the confusion matrix and the sum of cross-entropies, nats."""
        truth = y.astype(np.int64)
        wide = logits.astype(np.float64)
        wide -= wide.max(axis=1, keepdims=True)
        chosen = wide[np.arange(len(truth)), truth]
        self.loss_sum += float((np.log(np.exp(wide).sum(axis=1)) - chosen).sum())
        self.confusion += count_confusion(truth, logits.argmax(axis=1), len(self.confusion))
        self.examples += len(truth)

    def figures(self) -> Mapping[str, float]:
        """`accuracy`, `macro_f1` and `loss`."""
        return {
            "accuracy": self.merit,
            "macro_f1": macro_f1(self.confusion),
            "loss": _share(self.loss_sum, self.examples),
        }


class LabelScore:
    """Labels that may hold together: right is an example of which every label is decided as it is (at probability .5).

    Attributes:
        table: (labels, 4) int64: there and found, found though not there, there and not found, neither.
    """

    def __init__(self, labels: int) -> None:
        self.examples = 0
        self.loss_sum = 0.0
        self.table = np.zeros((labels, 4), np.int64)
        self._correct = 0

    @property
    def correct(self) -> int:
        """Examples that were decided right as a whole."""
        return self._correct

    @property
    def merit(self) -> float:
        """Unweighted mean of the F1 of every label that is there or was found at least once."""
        found, false, missed, _ = self.table.T
        whole = 2 * found + false + missed
        if not self.examples:
            return float("nan")
        return float((2 * found[whole > 0] / whole[whole > 0]).mean()) if whole.any() else 1.0

    def add(self, logits: Float32, y: Truth) -> None:
        """Add to the table and the sum of cross-entropies, nats, a mean over the labels of an example."""
        there, said = y > 0.5, logits > 0
        for column, cell in enumerate((there & said, ~there & said, there & ~said, ~there & ~said)):
            self.table[:, column] += cell.sum(axis=0)
        wide = logits.astype(np.float64)
        each = np.maximum(wide, 0) - wide * y + np.log1p(np.exp(-np.abs(wide)))
        self.loss_sum += float(each.mean(axis=1).sum())
        self._correct += int((there == said).all(axis=1).sum())
        self.examples += len(y)

    def figures(self) -> Mapping[str, float]:
        """`exact_match`, `label_accuracy`, `macro_f1` and `loss`."""
        right = int(self.table[:, 0].sum() + self.table[:, 3].sum())
        return {
            "exact_match": _share(self.correct, self.examples),
            "label_accuracy": _share(right, int(self.table.sum())),
            "macro_f1": self.merit,
            "loss": _share(self.loss_sum, self.examples),
        }


class ValueScore:
    """Measured values: right is an example whose error is smaller than that of always answering the targets' offset.

    That is a count whatever the unit, needs no tolerance that somebody would have to choose, and begins near the half
    that a model which knows nothing reaches. Errors are those of scaled values, summed over the outputs.
    """

    def __init__(self, targets: Targets) -> None:
        self.examples = 0
        self.loss_sum = 0.0
        self._targets = targets
        self._correct = 0
        outputs = len(targets.unit)
        self._absolute, self._squared = np.zeros(outputs), np.zeros(outputs)
        self._sum, self._sum_of_squares = np.zeros(outputs), np.zeros(outputs)

    @property
    def correct(self) -> int:
        """Examples on which the model beats a constant."""
        return self._correct

    @property
    def merit(self) -> float:
        """Share of the targets' variation that is explained, the mean over outputs; below 0 for worse than the mean."""
        if not self.examples:
            return float("nan")
        variation = self._sum_of_squares - np.square(self._sum) / self.examples
        explained = np.where(self._squared > 0, 0.0, 1.0)  # of a target that does not vary: all or nothing
        np.divide(variation - self._squared, variation, out=explained, where=variation > 0)
        return float(explained.mean())

    def add(self, logits: Float32, y: Truth) -> None:
        """Add to the sums of errors."""
        truth = y.astype(np.float64)
        error = logits.astype(np.float64) - truth
        squared = np.square(error)
        self._absolute += np.abs(error).sum(axis=0)
        self._squared += squared.sum(axis=0)
        self._sum += truth.sum(axis=0)
        self._sum_of_squares += np.square(truth).sum(axis=0)
        self.loss_sum += float(squared.mean(axis=1).sum())
        self._correct += int((squared.sum(axis=1) < np.square(truth).sum(axis=1)).sum())
        self.examples += len(truth)

    def figures(self) -> Mapping[str, float]:
        """`r2` and `loss`; `mae_N` and `rmse_N` of output N in its unit."""
        count, scale = max(1, self.examples), np.abs(self._targets.scale)
        absolute, root = self._absolute / count / scale, np.sqrt(self._squared / count) / scale
        named = {f"mae_{at}": float(value) for at, value in enumerate(absolute)}
        named |= {f"rmse_{at}": float(value) for at, value in enumerate(root)}
        return {"r2": self.merit, "loss": _share(self.loss_sum, self.examples)} | (named if self.examples else {})


def new_score(manifest: Manifest) -> Score:
    """An empty score for a model's task."""
    if isinstance(manifest.targets, Targets):
        return ValueScore(manifest.targets)
    outputs = len(manifest.labels)
    return LabelScore(outputs) if manifest.task == "multilabel" else ClassScore(outputs)


def score(manifest: Manifest, predict: Callable[[Float32], Float32], batches: Iterable[tuple[Float32, Truth]]) -> Score:
    """Score a model on batches of examples.

    Args:
        manifest: names the task.
        predict: logits (n, outputs) of windows (n, L, C); a runtime's `predict`.
        batches: windows, and what they are labelled with; of any size.
    """
    found = new_score(manifest)
    for x, y in batches:
        for first in range(0, len(y), SCORING_BATCH):
            some = slice(first, first + SCORING_BATCH)
            found.add(predict(x[some]), y[some])
    return found


def check_truth(manifest: Manifest, y: Truth) -> str:
    """What is wrong with what examples are labelled with, as a sentence; empty where nothing is."""
    outputs = len(manifest.labels)
    if manifest.task == "classification":
        if y.dtype != np.int64 or y.ndim != 1:
            return f"classes {y.dtype}{y.shape} do not fit the model"
        return "a class is unknown to the model" if len(y) and (y.min() < 0 or y.max() >= outputs) else ""
    if y.dtype != np.float32 or y.ndim != 2 or y.shape[1] != outputs:
        return f"targets {y.dtype}{y.shape} do not fit the model, which has {outputs} outputs"
    if not np.isfinite(y).all():
        return "a target is not finite"
    return "a label is neither 0 nor 1" if manifest.task == "multilabel" and not np.isin(y, (0, 1)).all() else ""


def _share(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")
