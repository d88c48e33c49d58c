"""The loss of each task, and the gradient of the outputs. All of them are means, as torch's are by default.

classification  sum_n w[y_n] -log softmax(z_n)[y_n] / sum_n w[y_n]     torch.nn.CrossEntropyLoss(weight=w)
multilabel      mean of w_k (max(z, 0) - z y + log(1 + exp(-|z|)))     torch.nn.BCEWithLogitsLoss(weight=w)
regression      mean of (z - y)^2                                      torch.nn.MSELoss()
"""

from __future__ import annotations

import numpy as np

from bedside.authoring.graph import Graph
from bedside.authoring.net import Net
from bedside.core.bundle.training import LOSS, TARGETS


def emit_loss(graph: Graph, net: Net, outputs: str) -> str:
    """Add the input `y` and the output `loss`; returns the gradient of `outputs` (N, outputs)."""
    graph.output(LOSS, ())
    if net.task == "classification":
        graph.input(TARGETS, ("N",), "int64")
        return _emit_softmax(graph, net, outputs)
    graph.input(TARGETS, ("N", net.outputs))
    return _emit_sigmoid(graph, net, outputs) if net.task == "multilabel" else _emit_squares(graph, outputs)


def _emit_softmax(graph: Graph, net: Net, logits: str) -> str:
    """Cross-entropy by an explicit one-hot: gathering has been seen to lose its gradient on the way to a graph."""
    log_probability = graph.op("LogSoftmax", logits, axis=-1)
    levels = graph.constant(np.array([0, 1], np.float32))
    one_hot = graph.op("OneHot", TARGETS, graph.index(net.outputs), levels, axis=-1)
    weighed, error = one_hot, graph.op("Sub", graph.op("Exp", log_probability), one_hot)
    if net.class_weights:
        weighed = graph.op("Mul", one_hot, _weights(graph, net))
        error = graph.op("Mul", error, graph.op("ReduceSum", weighed, graph.ints(1), keepdims=1))
    total = graph.op("ReduceSum", weighed, keepdims=0)
    picked = graph.op("ReduceSum", graph.op("Mul", weighed, log_probability), keepdims=0)
    graph.op("Div", graph.op("Neg", picked), total, output=LOSS)
    return graph.op("Div", error, total)


def _emit_sigmoid(graph: Graph, net: Net, logits: str) -> str:
    """Binary cross-entropy in the form that does not overflow."""
    tail = graph.op("Softplus", graph.op("Neg", graph.op("Abs", logits)))
    kept = graph.op("Sub", graph.op("Relu", logits), graph.op("Mul", logits, TARGETS))
    loss, error = graph.op("Add", kept, tail), graph.op("Sub", graph.op("Sigmoid", logits), TARGETS)
    if net.class_weights:
        weights = _weights(graph, net)
        loss, error = graph.op("Mul", loss, weights), graph.op("Mul", error, weights)
    graph.op("ReduceMean", loss, keepdims=0, output=LOSS)
    return graph.op("Div", error, _count(graph))


def _emit_squares(graph: Graph, values: str) -> str:
    error = graph.op("Sub", values, TARGETS)
    graph.op("ReduceMean", graph.op("Mul", error, error), keepdims=0, output=LOSS)
    return graph.op("Div", graph.op("Mul", error, graph.number(2)), _count(graph))


def _weights(graph: Graph, net: Net) -> str:
    return graph.constant(np.array(net.class_weights, np.float32))


def _count(graph: Graph) -> str:
    return graph.op("Cast", graph.op("Size", TARGETS), to=1)
