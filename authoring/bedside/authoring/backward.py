"""The backward pass: the tape in reverse, every rule written out by hand.

Automatic differentiation followed by export has been seen to give wrong updates beside a correct loss; these rules are
few, and the tests hold them against finite differences and torch.

Rounding is passed straight through (its derivative is taken as one inside the range, zero outside it).

Source: Bengio et al. 2013 (straight-through estimator); Jacob et al. 2018, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from bedside.authoring.forward import Taped
from bedside.authoring.graph import Graph
from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu, Step


def emit_backward(graph: Graph, tape: Sequence[Taped], slope: str) -> dict[str, str]:
    """Append the backward pass from `slope`, the gradient of the logits; returns gradients by parameter name."""
    gradients: dict[str, str] = {}
    for taped in reversed(tape):
        step = taped.step
        if step.order >= 0:
            gradients |= _emit_parameters(graph, taped, slope)
            if step.order == 0:  # nothing below has parameters
                break
        slope = _emit_input(graph, taped, slope)
    return gradients


def _emit_parameters(graph: Graph, taped: Taped, slope: str) -> dict[str, str]:
    step = taped.step
    rows = _rows(graph, step, slope)
    weight = graph.op("Gemm", taped.columns, rows, transA=1)
    if isinstance(step.layer, Conv1d):
        weight = graph.op("Reshape", weight, graph.ints(step.layer.taps, step.before[-1], step.after[-1]))
    bias = graph.op("ReduceSum", rows, graph.ints(0), keepdims=0)
    return {f"w{step.order}": weight, f"b{step.order}": bias}


def _emit_input(graph: Graph, taped: Taped, slope: str) -> str:
    step = taped.step
    match step.layer:
        case Relu():
            return graph.op("Where", taped.mask, slope, graph.number(0))
        case MaxPool():
            return _spread_pairs(graph, taped, slope)
        case GlobalAveragePool():
            length, channels = step.before
            shared = graph.op("Div", slope, graph.number(length))
            rows = graph.op("Reshape", shared, graph.ints(-1, 1, channels))
            return graph.op("Expand", rows, graph.ints(1, length, 1))
        case Flatten():
            return graph.op("Reshape", slope, graph.ints(-1, *step.before))
        case Conv1d() | Dense():
            columns = graph.op("Gemm", _rows(graph, step, slope), taped.weight, transB=1)
            below = _col2im(graph, step, columns) if isinstance(step.layer, Conv1d) else columns
            return graph.op("Where", taped.inside, below, graph.number(0)) if taped.inside else below
        case _:
            raise NotImplementedError(step.layer)


def _rows(graph: Graph, step: Step, slope: str) -> str:
    """(N, L, units) to (N x L, units) for a convolution; a dense layer's gradient already is a matrix."""
    return graph.op("Reshape", slope, graph.ints(-1, step.after[-1])) if len(step.after) == 2 else slope


def _spread_pairs(graph: Graph, taped: Taped, slope: str) -> str:
    """Give each gradient of a pool to the member of its pair that was the largest (the first on a tie)."""
    half, channels = taped.step.after
    pairs = graph.op("Reshape", slope, graph.ints(-1, half, 1, channels))
    zero = graph.number(0)
    first = graph.op("Where", taped.mask, pairs, zero)
    second = graph.op("Where", taped.mask, zero, pairs)
    return graph.op("Reshape", graph.op("Concat", first, second, axis=2), graph.ints(-1, *taped.step.before))


def _col2im(graph: Graph, step: Step, columns: str) -> str:
    """Sum the gradient of every column over the input positions it was copied from."""
    assert isinstance(step.layer, Conv1d)  # noqa: S101 - narrows the type; the caller chose by it
    taps, (length, channels) = step.layer.taps, step.before
    stacked = graph.op("Reshape", columns, graph.ints(-1, length, taps * channels))
    if taps == 1:
        return stacked
    parts = graph.split(stacked, [channels] * taps, axis=2)
    shifted = [_shift(graph, part, tap - taps // 2, length) for tap, part in enumerate(parts)]
    return graph.op("Sum", *shifted)


def _shift(graph: Graph, part: str, by: int, length: int) -> str:
    """Move `part` (N, L, C) by `by` samples along time, zeros behind it; what leaves the window was padding."""
    if by == 0:
        return part
    first, last = (0, length - by) if by > 0 else (-by, length)
    kept = graph.op("Slice", part, graph.ints(first), graph.ints(last), graph.ints(1))
    pads = graph.ints(0, max(by, 0), 0, 0, max(-by, 0), 0)
    return graph.op("Pad", kept, pads, graph.number(0))
