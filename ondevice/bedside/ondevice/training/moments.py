"""A device's own moments of its windows: what a standardising layer divides by, without anybody pooling anything.

A mean and a mean of squares, so that their average over devices, weighted by examples, is that of all examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bedside.core.bundle.layers import Standardise, Step
from bedside.ondevice.runtimes import Float32


def own_moments(steps: Sequence[Step], batches: Iterable[Float32]) -> dict[str, Float32]:
    """The tensors of a net's standardising layer as the examples of this device have them.

    Args:
        steps: the layers in their places.
        batches: every example once, windows (n, L, C) float32 in parts of any size: they need not fit into memory.

    Returns:
        `mean{k}` and `square{k}`, float32 (C,); none when the net does not standardise or there are no examples.
    """
    first = steps[0]
    if not isinstance(first.layer, Standardise):
        return {}
    channels = first.before[-1]
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for x in batches:
        rows = x.reshape(-1, channels).astype(np.float64)
        total += rows.sum(axis=0)
        squares += np.square(rows).sum(axis=0)
        count += len(rows)
    if count == 0:
        return {}
    return {
        f"mean{first.norm}": (total / count).astype(np.float32),
        f"square{first.norm}": (squares / count).astype(np.float32),
    }
