"""`train.onnx`: one pure function, (parameters, optimiser state, batch, rates) to (parameters, state, loss).

Inputs: `x` (N, L, C) float32; `y` (N,) int64; `lr`, `momentum`, `mu` float32 scalars; every parameter under its own
name; `start.<name>` and `velocity.<name>` for every trained one. Outputs: `loss` and `<input>.next`.

    gradient += mu * (parameter - start)          FedProx; mu = 0 is FedAvg
    velocity  = momentum * velocity + gradient    as torch.optim.SGD without dampening
    parameter = parameter - lr * velocity

Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", equation 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from bedside.authoring.backward import emit_backward
from bedside.authoring.forward import Pass, Ranging, emit_forward
from bedside.authoring.graph import Graph
from bedside.core.bundle.layers import Step
from bedside.core.bundle.manifest import Level, TensorSpec

NEXT: Final = ".next"
START: Final = "start."
VELOCITY: Final = "velocity."


def build_training_graph(
    steps: Sequence[Step], parameters: Sequence[TensorSpec], amax: str, level: Level, weight_qmax: int
) -> bytes:
    """Return the bytes of `train.onnx` for a layer list followed by `steps`."""
    graph = Graph("train")
    x = graph.input("x", ("N", *steps[0].before))
    graph.input("y", ("N",), integer=True)
    for scalar in ("lr", "momentum", "mu"):
        graph.input(scalar, ())
    for spec in parameters:
        graph.input(spec.name, spec.shape)
    forward = emit_forward(graph, steps, x, Ranging(amax, weight_qmax, fake=level == "Q1"))
    slope = _emit_loss(graph, forward.logits, classes=steps[-1].after[0])
    gradients = emit_backward(graph, forward.tape, slope)
    graph.output("loss", ())
    for spec in parameters:
        if spec.name == amax:
            _emit_ranges(graph, forward, spec)
        else:
            _emit_update(graph, spec, gradients[spec.name])
    return graph.serialise()


def optimiser_tensors(parameters: Sequence[TensorSpec], amax: str) -> tuple[TensorSpec, ...]:
    """The optimiser's state: one velocity per trained parameter, zero at the start, never shared."""
    return tuple(TensorSpec(VELOCITY + spec.name, spec.shape, shared=False) for spec in parameters if spec.name != amax)


def _emit_loss(graph: Graph, logits: str, classes: int) -> str:
    """Mean cross-entropy by an explicit one-hot; returns the gradient of the logits."""
    log_probability = graph.op("LogSoftmax", logits, axis=-1)
    levels = graph.constant(np.array([0, 1], np.float32))
    one_hot = graph.op("OneHot", "y", graph.index(classes), levels, axis=-1)
    count = graph.op("Cast", graph.op("Size", "y"), to=1)
    picked = graph.op("ReduceSum", graph.op("Mul", one_hot, log_probability), keepdims=0)
    graph.op("Div", graph.op("Neg", picked), count, output="loss")
    return graph.op("Div", graph.op("Sub", graph.op("Exp", log_probability), one_hot), count)


def _emit_update(graph: Graph, spec: TensorSpec, gradient: str) -> None:
    name = spec.name
    start = graph.input(START + name, spec.shape)
    velocity = graph.input(VELOCITY + name, spec.shape)
    pull = graph.op("Mul", "mu", graph.op("Sub", name, start))
    carried = graph.op("Mul", "momentum", velocity)
    moved = graph.op("Add", carried, graph.op("Add", gradient, pull), output=velocity + NEXT)
    graph.op("Sub", name, graph.op("Mul", "lr", moved), output=name + NEXT)
    graph.output(name + NEXT, spec.shape)
    graph.output(velocity + NEXT, spec.shape)


def _emit_ranges(graph: Graph, forward: Pass, spec: TensorSpec) -> None:
    ranges = [graph.op("Reshape", value, graph.ints(1)) for value in forward.ranges]
    graph.op("Concat", *ranges, axis=0, output=spec.name + NEXT)
    graph.output(spec.name + NEXT, spec.shape)
