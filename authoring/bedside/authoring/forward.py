"""The forward pass of a layer list as graph nodes, and the tape that the backward pass reads. Channels-last.

Layers that are trained observe their inputs' ranges and normalise by the batch; frozen ones, and predictions, go by
what was observed before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bedside.authoring.convolution import as_matrix, emit_product
from bedside.authoring.graph import Graph
from bedside.authoring.norms import Normed, emit_norm, emit_running_norm, emit_standardise
from bedside.authoring.rounding import emit_moved_range, emit_range, round_activation, round_weight
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
    Step,
)
from bedside.core.bundle.parameters import AMAX


@dataclass(frozen=True, slots=True)
class Taped:
    """What one layer leaves for the backward pass.

    Attributes:
        step: the layer in its place.
        columns: of a layer with weights: its input as `convolution` wants it.
        weight: the matrix that was used, after fake quantisation.
        inside: mask of inputs within the quantised range; empty without fake quantisation.
        mask: of a rectifier or pool: where the gradient goes.
        normed: of a group or batch norm.
    """

    step: Step
    columns: tuple[str, ...] = ()
    weight: str = ""
    inside: str = ""
    mask: str = ""
    normed: Normed | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass: logits (N, outputs), the tape, and new statistics and ranges by tensor name."""

    logits: str
    tape: tuple[Taped, ...]
    observed: dict[str, str]


@dataclass(frozen=True, slots=True)
class Learning:
    """How a pass that is to be learnt from differs from a prediction.

    Attributes:
        first: place of the first layer that is trained.
        weight_qmax: largest magnitude of a quantised weight; 0 for no rounding in the pass.
        weights: values in the place of parameters, by tensor name.
    """

    first: int = 0
    weight_qmax: int = 0
    weights: Mapping[str, str] = field(default_factory=dict)


def emit_forward(graph: Graph, steps: Sequence[Step], x: str, learning: Learning | None) -> Pass:
    """Append the forward pass from `x` (N, L, C); without `learning`, as predictions in float have it."""
    tape: list[Taped] = []
    values: list[str] = []
    ranges: list[str] = []
    observed: dict[str, str] = {}
    for step in steps:
        trained = learning is not None and step.number >= learning.first
        below = values[-1] if values else x
        if step.kernel is not None:
            applied = values[step.skip] if step.skip >= 0 else below
            y, taped = _emit_weighted(graph, step, applied, learning, ranges)
            y = graph.op("Add", below, y) if step.skip >= 0 else y
        elif isinstance(step.layer, GroupNorm) or (isinstance(step.layer, BatchNorm) and trained):
            y, normed, moved = emit_norm(graph, step, below)
            taped = Taped(step, normed=normed)
            observed |= moved
        else:
            y, taped = _emit_plain(graph, step, below, values)
        tape.append(taped)
        values.append(y)
    if learning is not None:
        observed[AMAX] = graph.op("Concat", *(graph.op("Reshape", value, graph.ints(1)) for value in ranges), axis=0)
    return Pass(values[-1], tuple(tape), observed)


def _emit_weighted(graph: Graph, step: Step, x: str, learning: Learning | None, ranges: list[str]) -> tuple[str, Taped]:
    weight, inside = f"w{step.order}", ""
    if learning is not None:
        weight = learning.weights.get(weight, weight)
        trained = step.number >= learning.first
        ranges.append(emit_moved_range(graph, step, x, AMAX) if trained else emit_range(graph, step, AMAX))
    weight = as_matrix(graph, step, weight)
    if learning is not None and learning.weight_qmax:
        x, inside = round_activation(graph, step, x, ranges[-1])
        weight = round_weight(graph, weight, learning.weight_qmax)
    y, columns = emit_product(graph, step, x, weight)
    return y, Taped(step, columns, weight, inside)


def _emit_plain(graph: Graph, step: Step, x: str, values: Sequence[str]) -> tuple[str, Taped]:
    match step.layer:
        case Relu():
            y = graph.op("Relu", x)
            return y, Taped(step, mask=graph.op("Greater", y, graph.number(0)))
        case MaxPool():
            return _emit_pool(graph, step, x)
        case GlobalAveragePool():
            return graph.op("ReduceMean", x, graph.ints(1), keepdims=0), Taped(step)
        case Flatten():
            return graph.op("Reshape", x, graph.ints(-1, step.after[0])), Taped(step)
        case Add():
            return graph.op("Add", x, values[step.skip]), Taped(step)
        case BatchNorm():
            return emit_running_norm(graph, step, x), Taped(step)
        case Standardise():
            return emit_standardise(graph, step, x), Taped(step)
        case Conv1d() | DepthwiseConv1d() | Dense() | GroupNorm():
            raise ValueError(f"layer {step.number} is not without tensors")


def _emit_pool(graph: Graph, step: Step, x: str) -> tuple[str, Taped]:
    half, channels = step.after
    pairs = graph.op("Reshape", x, graph.ints(-1, half, 2, channels))
    first, second = graph.split(pairs, (1, 1), axis=2)
    largest = graph.op("Reshape", graph.op("Max", first, second), graph.ints(-1, half, channels))
    return largest, Taped(step, mask=graph.op("GreaterOrEqual", first, second))
