"""How wide an author may make a golden tolerance: never so wide that a graph that computes something else passes.

Each cap follows from the golden vector itself: of logits and losses from the largest, of a parameter from the way that
it went, so that one that stays where it was, or goes the other way, is outside whatever the manifest says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.bounds import LEAST_TOLERANCE
from bedside.core.bundle.manifest import Manifest
from bedside.core.bundle.tensors import Array
from bedside.core.errors import MalformedError

LOGITS_SHARE: Final = 0.05
"""Of the largest logit; a build states 2 %."""

LOSS_SHARE: Final = 0.15
"""Of the largest loss; a build states up to 5 %."""

WAY_SHARE: Final = 0.75
"""Of the root mean square of a parameter's way; a build states up to 50 %."""

RANGE_SHARE: Final = 0.1
"""Of the root mean square of the ranges; a build states 2 %."""


def check_tolerances(
    manifest: Manifest, parameters: Mapping[str, npt.NDArray[np.float32]], golden: Mapping[str, Array]
) -> None:
    """Check every tolerance against its golden vector; a vector that is missing is for the replay to miss.

    Raises:
        MalformedError: `bad-golden`: one is too wide.
    """
    for tolerance in manifest.golden.tolerances:
        name = "logits" if tolerance.tensor == "logits_litert" else tolerance.tensor
        if name not in golden:
            continue
        most = max(_cap(manifest, name, np.asarray(golden[name], np.float64), parameters), LEAST_TOLERANCE)
        if not tolerance.absolute <= most:
            raise MalformedError(
                "bad-golden",
                f"the golden tolerance of {tolerance.tensor[:64]} is {tolerance.absolute:.3g}, "
                f"and its vector allows {most:.3g}",
                remedy="build the bundle again with `bedside model build`",
            )


def _cap(
    manifest: Manifest, name: str, vector: npt.NDArray[np.float64], parameters: Mapping[str, npt.NDArray[np.float32]]
) -> float:
    """NaN where the vector has one, and 0 of what is no parameter of the model, or has another form."""
    kind = name.rpartition("/")[2]
    if "/" not in name:
        return LOGITS_SHARE * float(np.abs(vector).max(initial=0.0))
    if kind == "loss":
        return LOSS_SHARE * float(np.abs(vector).max(initial=0.0))
    if kind == manifest.quantisation.amax:
        return RANGE_SHARE * _root_mean_square(vector)
    start = parameters.get(kind)
    if start is None or start.shape != vector.shape:
        return 0.0
    return WAY_SHARE * _root_mean_square(vector - start)


def _root_mean_square(values: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
