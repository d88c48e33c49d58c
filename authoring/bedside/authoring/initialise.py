"""Initial parameters from a seed: He-normal weights, zero biases, and ranges observed on the author's probe windows.

Source: He et al. 2015, "Delving Deep into Rectifiers", section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from bedside.authoring.forward import AMAX_DECAY
from bedside.authoring.session import Float32, Int64, Rates, TrainingRun
from bedside.authoring.training_graph import build_training_graph, optimiser_tensors
from bedside.core.bundle.layers import Conv1d, Dense, Step
from bedside.core.bundle.manifest import TensorSpec

AMAX: Final = "amax"
"""Name of the tensor of activation ranges."""


def parameter_tensors(steps: Sequence[Step]) -> tuple[TensorSpec, ...]:
    """Every parameter of the net in the order of its layers, the ranges last."""
    specs: list[TensorSpec] = []
    for step in steps:
        if isinstance(step.layer, Conv1d | Dense):
            taps = (step.layer.taps,) if isinstance(step.layer, Conv1d) else ()
            specs.append(TensorSpec(f"w{step.order}", (*taps, step.before[-1], step.after[-1])))
            specs.append(TensorSpec(f"b{step.order}", step.after[-1:]))
    return (*specs, TensorSpec(AMAX, (len(specs) // 2,)))


def initial_parameters(steps: Sequence[Step], seed: int, x: Float32, y: Int64) -> dict[str, Float32]:
    """Draw the parameters; `x` (N, L, C) and `y` (N,) show what ranges the layers' inputs have."""
    generator = np.random.default_rng(seed)
    specs = parameter_tensors(steps)
    drawn = {spec.name: _draw(spec, generator) for spec in specs}
    return drawn | {AMAX: _ranges(steps, specs, drawn, x, y)}


def _draw(spec: TensorSpec, generator: np.random.Generator) -> Float32:
    if not spec.name.startswith("w"):
        return np.zeros(spec.shape, np.float32)
    spread = math.sqrt(2 / math.prod(spec.shape[:-1]))
    return (generator.standard_normal(spec.shape) * spread).astype(np.float32)


def _ranges(
    steps: Sequence[Step], specs: Sequence[TensorSpec], drawn: dict[str, Float32], x: Float32, y: Int64
) -> Float32:
    """One observation without rounding and without learning, scaled up from the share it has in a moving range."""
    graph = build_training_graph(steps, specs, AMAX, "Q0", weight_qmax=127)
    run = TrainingRun(graph, drawn, optimiser_tensors(specs, AMAX), Rates(learning_rate=0))
    run.step(x, y)
    return (run.parameters()[AMAX] / np.float32(1 - AMAX_DECAY)).astype(np.float32)
