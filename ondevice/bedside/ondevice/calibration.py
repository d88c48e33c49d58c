"""A temperature for a model's logits, and how far its probabilities are from being right as often as they say.

Sources: Guo et al. 2017, "On Calibration of Modern Neural Networks", sections 2 and 4.2 (expected calibration error,
temperature scaling); Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2 (targets that are a
little short of certain, so that windows without an error do not ask for certainty).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.training import Task
from bedside.ondevice.heads import COLDEST, HOTTEST
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.scoring import Truth

BINS: Final = 15
"""Of the expected calibration error, as in its source."""

_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_STEPS: Final = 48
"""Each leaves 0.62 of the interval: the last one is 1e-9 of the first."""

Float64 = npt.NDArray[np.float64]


def fit_temperature(task: Task, logits: Float32, y: Truth) -> float:
    """The temperature with which the labelled windows are likeliest.

    The likelihood has one maximum: its logarithm is concave in one over the temperature.

    Args:
        task: classification or multilabel.
        logits: (n, outputs).
        y: what the windows are labelled with, see `Truth`.

    Returns:
        Between `COLDEST` and `HOTTEST`; 1 of no window, and of a regression, whose values have no probability.
    """
    if task == "regression" or len(y) == 0:
        return 1.0
    wide, targets = logits.astype(np.float64), _short_of_certain(task, y, logits.shape[1])
    low, high = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _surprise(task, wide / math.exp(left), targets) <= _surprise(task, wide / math.exp(right), targets):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def calibration_error(task: Task, probabilities: Float32, y: Truth) -> float | None:
    """Expected calibration error: how far confidence is from the share that is right, a mean over the windows.

    Of classes the confidence is the largest probability; of several labels each is judged for itself.

    Args:
        task: as above.
        probabilities: (n, outputs), of `Head.answers`.
        y: likewise.

    Returns:
        0 to 1; None of a regression, and of no window.
    """
    if task == "regression" or len(y) == 0:
        return None
    if task == "classification":
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    else:
        confidence, right = probabilities.ravel(), y.ravel() > 0.5
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence.astype(np.float64), minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _short_of_certain(task: Task, y: Truth, outputs: int) -> Float64:
    """What each output's probability should be: certain but for one part in two more than there are windows."""
    doubt = 1 / (len(y) + 2)
    if task == "multilabel":
        return y.astype(np.float64) * (1 - 2 * doubt) + doubt
    return np.eye(outputs)[y.astype(np.int64)] * (1 - doubt) + doubt / outputs


def _surprise(task: Task, logits: Float64, targets: Float64) -> float:
    """Mean cross-entropy, nats."""
    if task == "multilabel":
        each = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
        return float(each.mean())
    shifted = logits - logits.max(axis=1, keepdims=True)
    whole = np.log(np.exp(shifted).sum(axis=1))
    return float((whole - (shifted * targets).sum(axis=1)).mean())
