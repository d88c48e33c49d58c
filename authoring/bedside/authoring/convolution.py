"""Layers with weights: what they give, and what their weight, bias and input get of its gradient.

A convolution is im2col and one two-dimensional Gemm, which the ordinary onnxruntime runs about twice as fast on one
core as Conv and its transpose. A depthwise one has no sum over channels: there a product per tap is the quickest.
"""

from __future__ import annotations

from collections.abc import Sequence

from bedside.authoring.graph import Graph
from bedside.core.bundle.layers import Kernel, Step


def as_matrix(graph: Graph, step: Step, weight: str) -> str:
    """A weight as it is multiplied and rounded: (what is summed, outputs)."""
    kernel = kernel_of(step)
    return graph.op("Reshape", weight, graph.ints(-1, kernel.outputs)) if kernel.form == "conv" else weight


def emit_product(graph: Graph, step: Step, x: str, weight: str) -> tuple[str, tuple[str, ...]]:
    """Apply a weight (matrix) and the layer's bias to `x`.

    Returns:
        The output, and the columns that the gradient of the weight needs: for a depthwise layer one per tap.
    """
    kernel, bias = kernel_of(step), f"b{step.order}"
    if kernel.form == "dense":
        return graph.op("Gemm", x, weight, bias), (x,)
    parts = _windows(graph, step, x)
    if kernel.form == "depthwise":
        products = [graph.op("Mul", *pair) for pair in zip(parts, _taps(graph, kernel, weight), strict=True)]
        return graph.op("Add", graph.op("Sum", *products), bias), parts
    columns = graph.op("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]
    columns = graph.op("Reshape", columns, graph.ints(-1, kernel.taps * kernel.inputs))
    return graph.op("Reshape", graph.op("Gemm", columns, weight, bias), graph.ints(-1, *step.after)), (columns,)


def emit_weight_gradient(graph: Graph, step: Step, columns: Sequence[str], slope: str) -> str:
    """The gradient of the weight in its own shape, from that of the output."""
    kernel = kernel_of(step)
    if kernel.form == "depthwise":
        axes = graph.ints(0, 1)
        sums = [graph.op("ReduceSum", graph.op("Mul", part, slope), axes, keepdims=1) for part in columns]
        stacked = graph.op("Concat", *sums, axis=0) if len(sums) > 1 else sums[0]
        return graph.op("Reshape", stacked, graph.ints(kernel.taps, kernel.outputs))
    gradient = graph.op("Gemm", columns[0], as_rows(graph, step, slope), transA=1)
    if kernel.form == "dense":
        return gradient
    return graph.op("Reshape", gradient, graph.ints(kernel.taps, kernel.inputs, kernel.outputs))


def emit_bias_gradient(graph: Graph, step: Step, slope: str) -> str:
    """The gradient of the bias (outputs,)."""
    return graph.op("ReduceSum", as_rows(graph, step, slope), graph.ints(0), keepdims=0)


def emit_input_gradient(graph: Graph, step: Step, weight: str, slope: str) -> str:
    """The gradient of what the layer's weights were applied to; `weight` is the matrix that was used."""
    kernel = kernel_of(step)
    if kernel.form == "depthwise":
        return _overlapped(graph, step, [graph.op("Mul", slope, tap) for tap in _taps(graph, kernel, weight)])
    columns = graph.op("Gemm", as_rows(graph, step, slope), weight, transB=1)
    if kernel.form == "dense":
        return columns
    columns = graph.op("Reshape", columns, graph.ints(-1, step.after[0], kernel.taps * kernel.inputs))
    parts = [columns] if kernel.taps == 1 else graph.split(columns, [kernel.inputs] * kernel.taps, axis=2)
    return _overlapped(graph, step, parts)


def as_rows(graph: Graph, step: Step, value: str) -> str:
    """(N, L, C) to (N x L, C); without a time axis it already is a matrix."""
    return graph.op("Reshape", value, graph.ints(-1, step.after[-1])) if len(step.after) == 2 else value


def kernel_of(step: Step) -> Kernel:
    """The kernel of a layer that is known to have one."""
    if step.kernel is None:
        raise ValueError(f"layer {step.number} has no weights")
    return step.kernel


def _taps(graph: Graph, kernel: Kernel, weight: str) -> list[str]:
    """A depthwise weight (taps, C) as rows (1, C)."""
    return [weight] if kernel.taps == 1 else graph.split(weight, [1] * kernel.taps, axis=0)


def _windows(graph: Graph, step: Step, x: str) -> tuple[str, ...]:
    """For each tap, the samples (N, L / stride, C) that it meets, with zeros around the window."""
    kernel = kernel_of(step)
    taps, stride, length = kernel.taps, kernel.stride, step.after[0] * kernel.stride
    if taps == stride == 1:
        return (x,)
    margin = taps // 2
    if margin:
        x = graph.op("Pad", x, graph.ints(0, margin, 0, 0, margin, 0), graph.number(0))
    axis, by = graph.ints(1), graph.ints(stride)
    return tuple(graph.op("Slice", x, graph.ints(tap), graph.ints(tap + length), axis, by) for tap in range(taps))


def _overlapped(graph: Graph, step: Step, parts: Sequence[str]) -> str:
    """The opposite of `_windows`: sum the gradient of every tap's samples where they were taken from.

    With a stride of s, sample s j + r is met by the taps that stand r from the window's middle, modulo s; the samples
    of each r are summed by themselves and then laid between those of the others.
    """
    kernel, length = kernel_of(step), step.after[0]
    phases: list[list[str]] = [[] for _ in range(kernel.stride)]
    for tap, part in enumerate(parts):
        by, phase = divmod(tap - kernel.taps // 2, kernel.stride)
        if abs(by) < length:
            phases[phase].append(_shift(graph, part, by, length))
    zeros = graph.op("Mul", parts[0], graph.number(0)) if not all(phases) else ""
    sums = [(graph.op("Sum", *phase) if len(phase) > 1 else phase[0]) if phase else zeros for phase in phases]
    if len(sums) == 1:
        return sums[0]
    return graph.op("Reshape", graph.op("Concat", *sums, axis=2), graph.ints(-1, length * kernel.stride, kernel.inputs))


def _shift(graph: Graph, part: str, by: int, length: int) -> str:
    """Move `part` (N, L, C) by `by` samples along time, zeros behind it; what leaves the window was padding."""
    if by == 0:
        return part
    first, last = (0, length - by) if by > 0 else (-by, length)
    kept = graph.op("Slice", part, graph.ints(first), graph.ints(last), graph.ints(1))
    pads = graph.ints(0, max(by, 0), 0, 0, max(-by, 0), 0)
    return graph.op("Pad", kept, pads, graph.number(0))
