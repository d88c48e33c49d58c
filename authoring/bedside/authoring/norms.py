"""Normalising layers: what they give, and the gradients of their scale, shift and input.

With m the mean over what is normalised together, n the normalised values and g the gradient of the output times
gamma, the input's gradient is (g - m(g) - n m(g n)) / deviation.

Source: Ioffe and Szegedy 2015, "Batch Normalization", section 3; Wu and He 2018, "Group Normalization", section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bedside.authoring.graph import Graph
from bedside.core.bundle.layers import GroupNorm, Step
from bedside.core.bundle.parameters import NORM_EPSILON

RUNNING_SHARE: Final = 0.1
"""Weight of a batch's statistics in the running ones, as torch has it."""


@dataclass(frozen=True, slots=True)
class Normed:
    """Values of mean 0 and variance 1, and one over the deviation that they had."""

    values: str
    inverse: str


def emit_norm(graph: Graph, step: Step, x: str) -> tuple[str, Normed, dict[str, str]]:
    """Normalise `x` by its own statistics: per example and group of channels, or per channel of the batch.

    Returns:
        The output, what the gradient needs, and the new running statistics of a batch norm by tensor name.
    """
    mean = _mean(graph, step, x)
    centred = graph.op("Sub", x, mean)
    variance = _mean(graph, step, graph.op("Mul", centred, centred))
    inverse = _inverse_deviation(graph, variance)
    values = graph.op("Mul", centred, inverse)
    y = graph.op("Add", graph.op("Mul", values, f"gamma{step.norm}"), f"beta{step.norm}")
    moved = {} if isinstance(step.layer, GroupNorm) else _running(graph, step, x, mean, variance)
    return y, Normed(values, inverse), moved


def emit_norm_gradients(graph: Graph, step: Step, normed: Normed, slope: str) -> tuple[dict[str, str], str]:
    """The gradients of `gamma` and `beta` by tensor name, and that of the input."""
    both = graph.op("Mul", slope, normed.values)
    axes = graph.ints(*range(len(step.after)))
    gradients = {
        f"gamma{step.norm}": graph.op("ReduceSum", both, axes, keepdims=0),
        f"beta{step.norm}": graph.op("ReduceSum", slope, axes, keepdims=0),
    }
    scaled = graph.op("Mul", slope, f"gamma{step.norm}")
    shared = _mean(graph, step, scaled)
    along = _mean(graph, step, graph.op("Mul", scaled, normed.values))
    free = graph.op("Sub", graph.op("Sub", scaled, shared), graph.op("Mul", normed.values, along))
    return gradients, graph.op("Mul", free, normed.inverse)


def emit_running_norm(graph: Graph, step: Step, x: str) -> str:
    """A batch norm as predictions have it: by its running statistics."""
    norm = step.norm
    variance = graph.op("Max", f"variance{norm}", graph.number(0))
    factor = graph.op("Mul", f"gamma{norm}", _inverse_deviation(graph, variance))
    shift = graph.op("Sub", f"beta{norm}", graph.op("Mul", f"mean{norm}", factor))
    return graph.op("Add", graph.op("Mul", x, factor), shift)


def emit_standardise(graph: Graph, step: Step, x: str) -> str:
    """Each channel by its raw moments, which training does not change."""
    mean, square = f"mean{step.norm}", f"square{step.norm}"
    variance = graph.op("Max", graph.op("Sub", square, graph.op("Mul", mean, mean)), graph.number(0))
    factor = _inverse_deviation(graph, variance)
    return graph.op("Add", graph.op("Mul", x, factor), graph.op("Mul", graph.op("Neg", mean), factor))


def _mean(graph: Graph, step: Step, x: str) -> str:
    """The mean over what is normalised together, in a shape that fits to the side of `x`."""
    if not isinstance(step.layer, GroupNorm):
        return graph.op("ReduceMean", x, graph.ints(*range(len(step.after))), keepdims=1)
    groups, channels = step.layer.groups, step.after[-1]
    means = graph.op("ReduceMean", x, graph.ints(1), keepdims=1)  # one axis after the other is quicker than both
    if groups == channels:
        return means
    grouped = graph.op("Reshape", means, graph.ints(-1, 1, groups, channels // groups))
    wide = graph.op(
        "Expand", graph.op("ReduceMean", grouped, graph.ints(3), keepdims=1), graph.ints(1, 1, 1, channels // groups)
    )
    return graph.op("Reshape", wide, graph.ints(-1, 1, channels))


def _inverse_deviation(graph: Graph, variance: str) -> str:
    return graph.op("Reciprocal", graph.op("Sqrt", graph.op("Add", variance, graph.number(NORM_EPSILON))))


def _running(graph: Graph, step: Step, x: str, mean: str, variance: str) -> dict[str, str]:
    """The running statistics after this batch; their variance is that of the sample, without bias."""
    norm, channels = step.norm, step.after[-1]
    rows = graph.op("Cast", graph.op("Div", graph.op("Size", x), graph.index(channels)), to=1)
    freedom = graph.op("Max", graph.op("Sub", rows, graph.number(1)), graph.number(1))
    unbiased = graph.op("Mul", variance, graph.op("Div", rows, freedom))
    moved = {}
    for name, batch in ((f"mean{norm}", mean), (f"variance{norm}", unbiased)):
        flat = graph.op("Reshape", batch, graph.ints(channels))
        kept = graph.op("Mul", name, graph.number(1 - RUNNING_SHARE))
        moved[name] = graph.op("Add", kept, graph.op("Mul", flat, graph.number(RUNNING_SHARE)))
    return moved
