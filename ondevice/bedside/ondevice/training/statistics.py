"""A device's own statistics of windows without labels: what its normalising layers need before anything is trained.

The moments of a standardising layer are counted. Those of a local batch norm are the running ones of its training
graph at a learning rate of 0, which moves nothing else; what the windows are labelled with does not matter then.

Source: Li et al. 2017, "Revisiting Batch Normalization For Practical Domain Adaptation" (AdaBN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from bedside.core.bundle.layers import BatchNorm
from bedside.core.bundle.manifest import Manifest
from bedside.core.bundle.parameters import tensors_of
from bedside.core.bundle.training import TrainingGraph
from bedside.core.bundle.verify import Bundle
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.runtimes.installed import is_installed
from bedside.ondevice.training.moments import own_moments
from bedside.ondevice.training.scoring import Truth

MIN_WINDOWS: Final = 32
"""With fewer, the author's statistics are the better ones."""
_BATCH: Final = 32
_PASSES: Final = 3


def own_names(manifest: Manifest) -> frozenset[str]:
    """The local tensors of a model that windows without labels tell here.

    Running statistics are told by a training graph, for which onnxruntime must be installed.
    """
    graph = _graph_of(manifest)
    reached = {spec.name for spec in manifest.changed(graph.suffix)} if graph is not None else set()
    observed = set()
    for step in manifest.steps():
        names = {spec.name for spec in tensors_of(step) if not spec.trained}
        if isinstance(step.layer, BatchNorm):
            names &= reached if is_installed("onnx") else set()
        observed |= names
    return frozenset(spec.name for spec in manifest.parameters if spec.name in observed and not spec.shared)


def own_statistics(bundle: Bundle, start: Mapping[str, Float32], x: Float32) -> dict[str, Float32]:
    """What a device's windows tell of `own_names`.

    Args:
        bundle: the model.
        start: its parameters.
        x: windows (n, L, C) float32 normalised, n >= 2.

    Returns:
        float32 by name; a batch norm that no training graph of the bundle reaches is not among them.

    Raises:
        MalformedError: `bad-graph`.
    """
    names, steps = own_names(bundle.manifest), bundle.manifest.steps()
    own = {name: array for name, array in own_moments(steps, [x]).items() if name in names}
    normed = [step for step in steps if isinstance(step.layer, BatchNorm)]
    norms = {spec.name for step in normed for spec in tensors_of(step) if not spec.trained}
    graph = _graph_of(bundle.manifest)
    if graph is None or not norms & names:
        return own
    from bedside.ondevice.training.step import Rates, open_step  # onnxruntime

    step = open_step(bundle, graph, {**start, **own}, Rates(0.0))
    batch = min(_BATCH, len(x))
    for seed in range(_PASSES):
        order = np.random.default_rng(seed).permutation(len(x))
        for first in range(0, len(x) - batch + 1, batch):
            picked = order[first : first + batch]
            step(x[picked], _anything(bundle.manifest, batch))
    moved = step.parameters()
    return own | {name: moved[name] for name in norms & names}


def _graph_of(manifest: Manifest) -> TrainingGraph | None:
    """The training graph that passes through the most layers, without rounding its weights where there is a choice."""
    return max(manifest.graphs, key=lambda one: (len(manifest.changed(one.suffix)), one.level != "Q2"), default=None)


def _anything(manifest: Manifest, count: int) -> Truth:
    if manifest.task == "classification":
        return np.zeros(count, np.int64)
    return np.zeros((count, len(manifest.labels)), np.float32)
