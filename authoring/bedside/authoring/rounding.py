"""Fake quantisation: in float, exactly as `bedside.core.bundle.quantise` will round later.

Source: Jacob et al. 2018, section 3 (simulated quantisation with a moving range); Bengio et al. 2013 (the
straight-through estimator: the derivative of rounding is taken as one inside the range, zero outside it).
"""

from __future__ import annotations

from typing import Final

from bedside.authoring.graph import Graph
from bedside.core.bundle.layers import Step
from bedside.core.bundle.quantise import MIN_SCALE

AMAX_DECAY: Final = 0.9
"""Weight of the old range in the moving range of an activation."""


def emit_range(graph: Graph, step: Step, amax: str) -> str:
    """Layer `step.order`'s range as it is, a scalar."""
    return graph.op("Gather", amax, graph.index(step.order), axis=0)


def emit_moved_range(graph: Graph, step: Step, x: str, amax: str) -> str:
    """Move layer `step.order`'s range towards the largest magnitude of this batch; returns a scalar."""
    largest = graph.op("ReduceMax", graph.op("Abs", x) if step.signed else x, keepdims=0)
    kept = graph.op("Mul", emit_range(graph, step, amax), graph.number(AMAX_DECAY))
    return graph.op("Add", kept, graph.op("Mul", largest, graph.number(1 - AMAX_DECAY)))


def round_activation(graph: Graph, step: Step, x: str, amax: str) -> tuple[str, str]:
    """Round `x` to 8 bits; returns it with the mask of values inside the range."""
    levels = 127 if step.signed else 255
    scale = graph.op("Max", graph.op("Div", amax, graph.number(levels)), graph.number(MIN_SCALE))
    whole = graph.op("Round", graph.op("Div", x, scale))
    clipped = graph.op("Clip", whole, graph.number(-levels if step.signed else 0), graph.number(levels))
    inside = graph.op("LessOrEqual", graph.op("Abs", x) if step.signed else x, amax)
    return graph.op("Mul", clipped, scale), inside


def round_weight(graph: Graph, weight: str, qmax: int) -> str:
    """Round a matrix (inputs, units) to whole multiples of a scale per unit."""
    largest = graph.op("ReduceMax", graph.op("Abs", weight), graph.ints(0), keepdims=1)
    scale = graph.op("Max", graph.op("Div", largest, graph.number(qmax)), graph.number(MIN_SCALE))
    return graph.op("Mul", graph.op("Round", graph.op("Div", weight, scale)), scale)
