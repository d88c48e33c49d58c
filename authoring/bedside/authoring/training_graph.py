"""A training graph: one pure function, (parameters, optimiser state, batch, rates) to (parameters, state, loss).

Inputs: `x` (N, L, C) float32; `y`, classes (N,) int64 or values (N, outputs) float32; `lr`, `momentum`, `mu` and `clip`
float32 scalars; every parameter under its own name; `start.<name>` for every one that is trained, and the optimiser's
state. Outputs: `loss`, and `<input>.next` for what a step changes.

At level Q2 the weights that are trained are int8, with `<name>.scale` (outputs,) beside them, and so are their
`start.<name>`; `noise` uint16 has one value for each of them, in the order of the parameters. A step rounds a weight of
v scales to floor(v + noise / 65536), which is v on average, and keeps it within the 255 values of the grid.

Source: Gupta et al. 2015, "Deep Learning with Limited Numerical Precision", section 3 (stochastic rounding).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from bedside.authoring.backward import emit_backward
from bedside.authoring.forward import Learning, emit_forward
from bedside.authoring.graph import Graph
from bedside.authoring.loss import emit_loss
from bedside.authoring.net import Net
from bedside.authoring.optimiser import emit_clip, emit_moves, emit_pull
from bedside.core.bundle.parameters import TensorSpec
from bedside.core.bundle.training import NEXT, NOISE, SCALE, START, TrainingGraph, suffix_tensors
from bedside.ondevice.training.grid import GRID_MAX, NOISE_LEVELS

_FLOAT: Final = 1
_INT8: Final = 3


def build_training_graph(net: Net, kind: TrainingGraph, first: int = 0) -> bytes:
    """Return the bytes of one training graph of a net, which trains the layers from place `first` on."""
    graph = Graph("train")
    x = graph.input("x", ("N", *net.input_shape))
    for scalar in ("lr", "momentum", "mu", "clip"):
        graph.input(scalar, ())
    changed = suffix_tensors(net.steps, first)
    trained = [spec for spec in changed if spec.trained]
    kept = [spec for spec in trained if kind.level == "Q2" and spec.name.startswith("w")]
    whole = {spec.name: _emit_whole(graph, spec) for spec in kept}
    for spec in net.parameters:
        graph.input(spec.name, spec.shape, "int8" if spec.name in whole else "float32")
    weights = {name: graph.op("Mul", value, name + SCALE) for name, value in whole.items()}
    learning = Learning(first, 0 if kind.level == "Q0" else net.weight_qmax, weights)
    forward = emit_forward(graph, net.steps, x, learning)
    slope = emit_loss(graph, net, forward.logits)
    gradients = emit_backward(graph, forward.tape, slope, first)
    pulled = {spec.name: emit_pull(graph, gradients[spec.name], _emit_away(graph, spec, whole)) for spec in trained}
    moves = emit_moves(graph, kind.optimiser, emit_clip(graph, pulled), {spec.name: spec.shape for spec in trained})
    noise = _emit_noise(graph, kept)
    for spec in changed:
        name = spec.name
        if name in whole:
            _emit_rounded(graph, spec, whole[name], moves[name], noise[name])
        elif name in moves:
            graph.op("Sub", name, moves[name], output=name + NEXT)
        elif name in forward.observed:
            graph.op("Identity", forward.observed[name], output=name + NEXT)
        else:
            continue
        graph.output(name + NEXT, spec.shape, "int8" if name in whole else "float32")
    return graph.serialise()


def _emit_whole(graph: Graph, spec: TensorSpec) -> str:
    """A weight's int8 in float."""
    graph.input(spec.name + SCALE, spec.shape[-1:])
    return graph.op("Cast", spec.name, to=_FLOAT)


def _emit_away(graph: Graph, spec: TensorSpec, whole: Mapping[str, str]) -> str:
    """How far a parameter is from where the round began."""
    name = spec.name
    if name not in whole:
        return graph.op("Sub", name, graph.input(START + name, spec.shape))
    start = graph.op("Cast", graph.input(START + name, spec.shape, "int8"), to=_FLOAT)
    return graph.op("Mul", graph.op("Sub", whole[name], start), name + SCALE)


def _emit_noise(graph: Graph, kept: Sequence[TensorSpec]) -> dict[str, str]:
    """For each int8 weight, values from 0 to below 1 in its shape."""
    if not kept:
        return {}
    sizes = [math.prod(spec.shape) for spec in kept]
    values = graph.op("Cast", graph.input(NOISE, (sum(sizes),), "uint16"), to=_FLOAT)
    values = graph.op("Mul", values, graph.number(1 / NOISE_LEVELS))
    parts = graph.split(values, sizes, axis=0) if len(sizes) > 1 else [values]
    return {
        spec.name: graph.op("Reshape", part, graph.ints(*spec.shape)) for spec, part in zip(kept, parts, strict=True)
    }


def _emit_rounded(graph: Graph, spec: TensorSpec, whole: str, move: str, noise: str) -> None:
    """Take a move in real units off a weight on its grid, and round it back onto that."""
    value = graph.op("Sub", whole, graph.op("Div", move, spec.name + SCALE))
    lower = graph.op("Floor", graph.op("Add", value, noise))
    inside = graph.op("Clip", lower, graph.number(-GRID_MAX), graph.number(GRID_MAX))
    graph.op("Cast", inside, to=_INT8, output=spec.name + NEXT)
