"""Initial parameters from a seed: He-normal weights, zero biases, and ranges observed on the author's probe windows.

Source: He et al. 2015, "Delving Deep into Rectifiers", section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from bedside.authoring.net import Net
from bedside.authoring.rounding import AMAX_DECAY
from bedside.authoring.training_graph import build_training_graph
from bedside.core.bundle.parameters import AMAX, TensorSpec
from bedside.core.bundle.training import ALL, TrainingGraph, optimiser_tensors
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.step import Rates, Targets, TrainingStep

_OBSERVED: Final = TrainingGraph("Q0", ALL, "sgd")
"""How ranges are observed: without rounding."""


_ONES: Final = ("gamma", "variance", "square")
"""Norms begin by changing nothing."""


def initial_parameters(
    net: Net, seed: int, x: Float32, y: Targets, given: Mapping[str, Float32] | None = None
) -> dict[str, Float32]:
    """Draw the parameters that are not `given`; `x` (N, L, C) and `y` show what ranges the layers' inputs have."""
    generator = np.random.default_rng(seed)
    linear = sum(step.kernel is not None for step in net.steps) == 1
    drawn = {spec.name: _draw(spec, generator, linear=linear) for spec in net.parameters} | dict(given or {})
    return drawn | {AMAX: _ranges(net, drawn, x, y)}


def _draw(spec: TensorSpec, generator: np.random.Generator, *, linear: bool) -> Float32:
    """One tensor; a net of a single layer with weights is convex in them, and begins at zero."""
    if linear or not spec.name.startswith("w"):
        return np.full(spec.shape, spec.name.startswith(_ONES), np.float32)
    spread = math.sqrt(2 / math.prod(spec.shape[:-1]))
    return (generator.standard_normal(spec.shape) * spread).astype(np.float32)


def _ranges(net: Net, drawn: dict[str, Float32], x: Float32, y: Targets) -> Float32:
    """One observation without rounding and without learning, scaled up from the share it has in a moving range."""
    graph = build_training_graph(net, _OBSERVED)
    step = TrainingStep(graph, drawn, optimiser_tensors(_OBSERVED, net.parameters), Rates(learning_rate=0))
    step(x, y)
    return (step.parameters()[AMAX] / np.float32(1 - AMAX_DECAY)).astype(np.float32)
