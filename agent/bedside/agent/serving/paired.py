"""Two models on the same windows: how much worse the new one is, and how sure that is.

Each window gives each model a score, higher is better; what counts is the difference window by window, so that windows
which both get right or wrong say nothing (McNemar's idea). Windows of one session, or near each other in time, are not
independent: the variance is that of the sums over such blocks, and a bound takes Student's t with as many degrees of
freedom.

Sources: Q. McNemar, Psychometrika 12 (1947); K.-Y. Liang, S. L. Zeger, Biometrika 73 (1986), clusters;
M. Abramowitz, I. A. Stegun, Handbook of Mathematical Functions (1964), 26.7.5, the quantile of t.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, assert_never

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from bedside.core.bundle.manifest import Manifest
    from bedside.ondevice.runtimes import Float32
    from bedside.ondevice.training.scoring import Truth

Float64 = npt.NDArray[np.float64]

MIN_BLOCKS: Final = 5
"""Independent stretches of time without which no variance is believed."""
_Z95: Final = 1.6448536269514722
"""95 % quantile of the standard normal distribution."""


class Score(NamedTuple):
    """How the models of one task are scored.

    Attributes:
        name: of the mean over all windows, as people read it.
        of: takes the logits (n, outputs) of n windows, and what they are labelled with (see `scoring.Truth`), and
            returns what each window adds to the mean, (n,) float64, higher is better.
    """

    name: str
    of: Callable[[Float32, Truth], Float64]


def score_of(manifest: Manifest) -> Score:
    """How the models of a manifest are scored.

    Every class counts alike, however rare it is, and so do the two sides of every label: of beats of which nine in ten
    are normal, accuracy would not tell a model that finds none of the others.
    """
    match manifest.task:
        case "classification":
            return Score("balanced accuracy", balanced)
        case "multilabel":
            return Score("balanced label accuracy", balanced_labels)
        case "regression":
            return Score("R^2", explained)
        case _:
            assert_never(manifest.task)


def balanced(logits: Float32, truth: Truth) -> Float64:
    """Shares of the mean over classes of the share of their windows that are found."""
    classes, of, each = np.unique(truth, return_inverse=True, return_counts=True)
    found: Float64 = (logits.argmax(axis=1) == truth) * (len(truth) / (len(classes) * each[of]))
    return found


def balanced_labels(logits: Float32, truth: Truth) -> Float64:
    """Shares of the mean of the same, over labels as pairs of classes: the label holds, or does not."""
    columns = [
        balanced(np.stack([np.zeros_like(said), said], axis=1), there.astype(np.int64))
        for said, there in zip(logits.T, truth.T, strict=True)
    ]
    found: Float64 = np.mean(columns, axis=0)
    return found


def explained(logits: Float32, truth: Truth) -> Float64:
    """Shares of the variation of the truth that is explained, a mean over the outputs."""
    squared = np.square(logits.astype(np.float64) - truth)
    variation = truth.astype(np.float64).var(axis=0)
    unexplained = np.divide(squared, variation, out=(squared > 0).astype(np.float64), where=variation > 0)
    found: Float64 = 1 - unexplained.mean(axis=1)
    return found


class Paired(NamedTuple):
    """What a comparison found.

    Attributes:
        windows: compared.
        blocks: independent stretches of time that they lie in.
        old: mean score of the model that serves.
        new: mean score of the other.
        surely_worse: lower bound (95 %, one-sided) of how much worse the new one is; negative where it may be better.
    """

    windows: int
    blocks: int
    old: float
    new: float
    surely_worse: float


def compare(old: Float64, new: Float64, blocks: Sequence[object]) -> Paired:
    """Compare scores (n,) of the same n >= 1 windows, each of which lies in one of `blocks` (n hashable values)."""
    loss = old - new
    number = {block: place for place, block in enumerate(dict.fromkeys(blocks))}
    windows, count, worse = len(loss), len(number), float(loss.mean())
    sums = np.bincount([number[block] for block in blocks], weights=loss - worse, minlength=count)
    alone, together = float(((loss - worse) ** 2).sum()), float((sums**2).sum())
    bound = -float("inf")
    if count > 1:
        variance = max(alone, together) * count / (count - 1) / windows**2
        bound = worse - _t95(count - 1) * variance**0.5
    return Paired(windows, count, float(old.mean()), float(new.mean()), bound)


def _t95(freedom: int) -> float:
    """95 % quantile of Student's t, within 0.02 from four degrees of freedom on."""
    z = _Z95
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
