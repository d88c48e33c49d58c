"""Two models on the same windows: how much worse the new one is, and how sure that is.

Each window gives each model a score, higher is better; what counts is the difference window by window, so that windows
which both get right or wrong say nothing (McNemar's idea). Windows near each other in time are not independent: the
variance is that of the sums over blocks of time, and a bound takes Student's t with as many degrees of freedom.

Sources: Q. McNemar, Psychometrika 12 (1947); K.-Y. Liang, S. L. Zeger, Biometrika 73 (1986), clusters;
M. Abramowitz, I. A. Stegun, Handbook of Mathematical Functions (1964), 26.7.5, the quantile of t.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

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
    """How one kind of model is scored.

    Attributes:
        name: as people read it.
        of: takes a model's logits of n windows (n, outputs), and the truth (see `Truth`), and returns a score for
            each (n,) float64, higher is better.
    """

    name: str
    of: Callable[[Float32, Truth], Float64]


def score_of(manifest: Manifest) -> Score:
    """How the model of a manifest is scored."""
    scores = {
        "classification": Score("accuracy", right),
        "multilabel": Score("share of labels decided right", decided),
        "regression": Score("squared error below zero", error_below_zero),
    }
    return scores[manifest.task]


def right(logits: Float32, truth: Truth) -> Float64:
    """1 for a window whose most probable class is its label, 0 for another."""
    found: Float64 = (logits.argmax(axis=1) == truth).astype(np.float64)
    return found


def decided(logits: Float32, truth: Truth) -> Float64:
    """Of a window's labels, the share that is decided as it is, at probability .5."""
    share: Float64 = ((logits > 0) == (truth > 0.5)).mean(axis=1, dtype=np.float64)
    return share


def error_below_zero(logits: Float32, truth: Truth) -> Float64:
    """The squared error of scaled values, a mean over the outputs, with its sign turned."""
    below: Float64 = -np.square(logits.astype(np.float64) - truth).mean(axis=1)
    return below


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
