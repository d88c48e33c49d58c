"""A training graph: one pure function, (parameters, optimiser state, batch, rates) to (parameters, state, loss).

Inputs: `x` (N, L, C) float32; `y` (N,) int64; `lr`, `momentum`, `mu` float32 scalars; every parameter under its own
name; `start.<name>` and `velocity.<name>` for every trained one. Outputs: `loss` and `<input>.next`.

    gradient += mu * (parameter - start)          FedProx; mu = 0 is FedAvg
    velocity  = momentum * velocity + gradient    as torch.optim.SGD without dampening
    parameter = parameter - lr * velocity

Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", equation 2.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bedside.authoring.backward import emit_backward
from bedside.authoring.forward import Pass, Ranging, emit_forward
from bedside.authoring.graph import Graph
from bedside.authoring.net import Net
from bedside.core.bundle.parameters import AMAX, TensorSpec
from bedside.core.bundle.training import TrainingGraph
from bedside.ondevice.training.step import NEXT, START

VELOCITY: Final = "velocity."


def build_training_graph(net: Net, kind: TrainingGraph) -> bytes:
    """Return the bytes of one training graph of a net."""
    graph = Graph("train")
    steps = net.steps
    x = graph.input("x", ("N", *net.input_shape))
    graph.input("y", ("N",), integer=True)
    for scalar in ("lr", "momentum", "mu"):
        graph.input(scalar, ())
    for spec in net.parameters:
        graph.input(spec.name, spec.shape)
    forward = emit_forward(graph, steps, x, Ranging(AMAX, net.weight_qmax, fake=kind.level == "Q1"))
    slope = _emit_loss(graph, forward.logits, classes=net.outputs)
    gradients = emit_backward(graph, forward.tape, slope)
    graph.output("loss", ())
    for spec in net.parameters:
        if spec.name == AMAX:
            _emit_ranges(graph, forward, spec)
        else:
            _emit_update(graph, spec, gradients[spec.name])
    return graph.serialise()


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
