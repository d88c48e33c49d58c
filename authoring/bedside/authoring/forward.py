"""The forward pass of a layer list as graph nodes, and the tape that the backward pass reads.

Channels-last. A convolution is im2col and one two-dimensional Gemm, which the ordinary onnxruntime runs about twice as
fast on one core as Conv and its transpose. With fake quantisation, weights are rounded per output channel and inputs
per tensor, both in float, exactly as `bedside.core.bundle.quantise` will round them later.

Source: Jacob et al. 2018, section 3 (simulated quantisation with a moving range).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bedside.authoring.graph import Graph
from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu, Step
from bedside.core.bundle.quantise import MIN_SCALE

AMAX_DECAY: Final = 0.9
"""Weight of the old range in the moving range of an activation."""


@dataclass(frozen=True, slots=True)
class Taped:
    """What one layer leaves for the backward pass.

    Attributes:
        step: the layer in its place.
        columns: of a layer with weights: its input as a matrix (rows, inputs).
        weight: the matrix (inputs, units) that was used, after fake quantisation.
        inside: mask of inputs within the quantised range; empty without fake quantisation.
        mask: of a rectifier or pool: where the gradient goes.
    """

    step: Step
    columns: str = ""
    weight: str = ""
    inside: str = ""
    mask: str = ""


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass: logits (N, classes), the tape, and each layer's new range (scalars)."""

    logits: str
    tape: tuple[Taped, ...]
    ranges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ranging:
    """How activations are observed and rounded.

    Attributes:
        amax: name of the vector of moving ranges.
        weight_qmax: largest magnitude of a quantised weight.
        fake: round in the pass (Q1), or only observe (Q0).
    """

    amax: str
    weight_qmax: int
    fake: bool


def emit_forward(graph: Graph, steps: Sequence[Step], x: str, ranging: Ranging | None) -> Pass:
    """Append the forward pass from `x` (N, L, C); with `ranging`, also the observation of activations."""
    tape: list[Taped] = []
    ranges: list[str] = []
    for step in steps:
        inside = ""
        if step.order >= 0 and ranging is not None:
            ranges.append(_observe(graph, x, step, ranging.amax))
            if ranging.fake:
                x, inside = _round_activation(graph, x, step, ranges[-1])
        x, taped = _emit(graph, step, x, ranging.weight_qmax if ranging and ranging.fake else 0, inside)
        tape.append(taped)
    return Pass(x, tuple(tape), tuple(ranges))


def _emit(graph: Graph, step: Step, x: str, weight_qmax: int, inside: str) -> tuple[str, Taped]:
    match step.layer:
        case Conv1d() | Dense():
            return _emit_weighted(graph, step, x, weight_qmax, inside)
        case Relu():
            y = graph.op("Relu", x)
            return y, Taped(step, mask=graph.op("Greater", y, graph.number(0)))
        case MaxPool():
            return _emit_pool(graph, step, x)
        case GlobalAveragePool():
            return graph.op("ReduceMean", x, graph.ints(1), keepdims=0), Taped(step)
        case Flatten():
            return graph.op("Reshape", x, graph.ints(-1, step.after[0])), Taped(step)
        case _:
            raise NotImplementedError(step.layer)


def _emit_weighted(graph: Graph, step: Step, x: str, weight_qmax: int, inside: str) -> tuple[str, Taped]:
    units = step.after[-1]
    weight, columns = f"w{step.order}", x
    if isinstance(step.layer, Conv1d):
        columns = _im2col(graph, step, x)
        weight = graph.op("Reshape", weight, graph.ints(-1, units))
    if weight_qmax:
        weight = _round_weight(graph, weight, weight_qmax)
    y = graph.op("Gemm", columns, weight, f"b{step.order}")
    if isinstance(step.layer, Conv1d):
        y = graph.op("Reshape", y, graph.ints(-1, *step.after))
    return y, Taped(step, columns=columns, weight=weight, inside=inside)


def _im2col(graph: Graph, step: Step, x: str) -> str:
    """(N, L, C) to (N x L, taps x C), zero-padded so that the length stays."""
    assert isinstance(step.layer, Conv1d)  # noqa: S101 - narrows the type; the caller chose by it
    taps, (length, channels) = step.layer.taps, step.before
    if taps > 1:
        margin = taps // 2
        padded = graph.op("Pad", x, graph.ints(0, margin, 0, 0, margin, 0), graph.number(0))
        shifted = [
            graph.op("Slice", padded, graph.ints(tap), graph.ints(tap + length), graph.ints(1)) for tap in range(taps)
        ]
        x = graph.op("Concat", *shifted, axis=2)
    return graph.op("Reshape", x, graph.ints(-1, taps * channels))


def _emit_pool(graph: Graph, step: Step, x: str) -> tuple[str, Taped]:
    half, channels = step.after
    pairs = graph.op("Reshape", x, graph.ints(-1, half, 2, channels))
    first, second = graph.split(pairs, (1, 1), axis=2)
    largest = graph.op("Reshape", graph.op("Max", first, second), graph.ints(-1, half, channels))
    return largest, Taped(step, mask=graph.op("GreaterOrEqual", first, second))


def _observe(graph: Graph, x: str, step: Step, amax: str) -> str:
    """Move layer `step.order`'s range towards the largest magnitude of this batch; returns a scalar."""
    largest = graph.op("ReduceMax", graph.op("Abs", x) if step.signed else x, keepdims=0)
    old = graph.op("Gather", amax, graph.index(step.order), axis=0)
    kept = graph.op("Mul", old, graph.number(AMAX_DECAY))
    return graph.op("Add", kept, graph.op("Mul", largest, graph.number(1 - AMAX_DECAY)))


def _round_activation(graph: Graph, x: str, step: Step, amax: str) -> tuple[str, str]:
    """Round `x` to 8 bits; returns it with the mask of values inside the range (straight-through estimator)."""
    levels = 127 if step.signed else 255
    scale = graph.op("Max", graph.op("Div", amax, graph.number(levels)), graph.number(MIN_SCALE))
    whole = graph.op("Round", graph.op("Div", x, scale))
    clipped = graph.op("Clip", whole, graph.number(-levels if step.signed else 0), graph.number(levels))
    inside = ""
    if step.order > 0:  # the gradient of the window itself is not wanted
        inside = graph.op("LessOrEqual", graph.op("Abs", x) if step.signed else x, amax)
    return graph.op("Mul", clipped, scale), inside


def _round_weight(graph: Graph, weight: str, qmax: int) -> str:
    """Round a matrix (inputs, units) to whole multiples of a scale per unit."""
    largest = graph.op("ReduceMax", graph.op("Abs", weight), graph.ints(0), keepdims=1)
    scale = graph.op("Max", graph.op("Div", largest, graph.number(qmax)), graph.number(MIN_SCALE))
    return graph.op("Mul", graph.op("Round", graph.op("Div", weight, scale)), scale)
