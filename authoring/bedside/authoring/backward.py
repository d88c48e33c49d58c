"""The backward pass: the tape in reverse, every rule written out by hand.

Automatic differentiation followed by export has been seen to give wrong updates beside a correct loss; these rules are
few, and the tests hold them against finite differences and torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from bedside.authoring.convolution import emit_bias_gradient, emit_input_gradient, emit_weight_gradient
from bedside.authoring.forward import Taped
from bedside.authoring.graph import Graph
from bedside.authoring.norms import emit_norm_gradients
from bedside.core.bundle.layers import (
    Add,
    BatchNorm,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    MaxPool,
    Relu,
    Standardise,
)

_FLOAT: Final = 1


def emit_backward(graph: Graph, tape: Sequence[Taped], slope: str, first: int = 0) -> dict[str, str]:
    """Append the backward pass from `slope`, the gradient of the logits, down to layer `first`.

    Returns:
        Gradients by parameter name. The gradient of a value that two layers used is the sum of theirs.
    """
    gradients: dict[str, str] = {}
    slopes: dict[int, list[str]] = {len(tape) - 1: [slope]}
    for taped in reversed(tape[first:]):
        step, parts = taped.step, slopes.pop(taped.step.number)
        slope = graph.op("Sum", *parts) if len(parts) > 1 else parts[0]
        below = slopes.setdefault(step.number - 1, [])
        if step.kernel is not None:
            gradients[f"w{step.order}"] = emit_weight_gradient(graph, step, taped.columns, slope)
            gradients[f"b{step.order}"] = _emit_bias(graph, tape, taped, slope)
            applied = _emit_applied(graph, taped, slope)
            if step.skip >= 0:
                below.append(slope)
                slopes.setdefault(step.skip, []).append(applied)
            else:
                below.append(applied)
        elif taped.normed is not None:
            learnt, under = emit_norm_gradients(graph, step, taped.normed, slope)
            gradients |= learnt
            below.append(under)
        else:
            below.append(_emit_plain(graph, taped, slope))
            if step.skip >= 0:
                slopes.setdefault(step.skip, []).append(slope)
    return gradients


def _emit_bias(graph: Graph, tape: Sequence[Taped], taped: Taped, slope: str) -> str:
    """A batch norm takes the mean, and so any bias, away: what would come out for one in front of it is noise."""
    step = taped.step
    later = tape[step.number + 1 :][:1]
    if any(isinstance(behind.step.layer, BatchNorm) for behind in later):
        return graph.constant(np.zeros(step.after[-1:], np.float32))
    return emit_bias_gradient(graph, step, slope)


def _emit_applied(graph: Graph, taped: Taped, slope: str) -> str:
    """The gradient of what a layer's weights were applied to; none for values outside the quantised range."""
    below = emit_input_gradient(graph, taped.step, taped.weight, slope)
    return _masked(graph, below, taped.inside) if taped.inside else below


def _emit_plain(graph: Graph, taped: Taped, slope: str) -> str:
    step = taped.step
    match step.layer:
        case Relu():
            return _masked(graph, slope, taped.mask)
        case MaxPool():
            return _spread_pairs(graph, taped, slope)
        case GlobalAveragePool():
            length, channels = step.before
            shared = graph.op("Div", slope, graph.number(length))
            rows = graph.op("Reshape", shared, graph.ints(-1, 1, channels))
            return graph.op("Expand", rows, graph.ints(1, length, 1))
        case Flatten():
            return graph.op("Reshape", slope, graph.ints(-1, *step.before))
        case Add():
            return slope
        case Standardise():  # the first layer: nothing below wants it
            return slope
        case Conv1d() | DepthwiseConv1d() | Dense() | GroupNorm() | BatchNorm():
            raise ValueError(f"layer {step.number} left no tape")


def _spread_pairs(graph: Graph, taped: Taped, slope: str) -> str:
    """Give each gradient of a pool to the member of its pair that was the largest (the first on a tie)."""
    half, channels = taped.step.after
    pairs = graph.op("Reshape", slope, graph.ints(-1, half, 1, channels))
    first = _masked(graph, pairs, taped.mask)
    second = graph.op("Sub", pairs, first)
    return graph.op("Reshape", graph.op("Concat", first, second, axis=2), graph.ints(-1, *taped.step.before))


def _masked(graph: Graph, slope: str, mask: str) -> str:
    """Nought where a mask is false. A product: a choice by value is ten times slower where the values are mixed."""
    return graph.op("Mul", slope, graph.op("Cast", mask, to=_FLOAT))
