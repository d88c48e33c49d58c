"""`infer.onnx` (int8, QDQ form) and `infer_float.onnx`, both from (N, L, C) windows to logits.

Every tensor that follows from the parameters is an initialiser under a fixed name, so that a device can lay its own
values over it (`SessionOptions.add_initializer`) without any model toolkit. The int8 graph is channels-first, because
onnxruntime fuses Conv between (de)quantising nodes; the float one repeats the training graph's forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bedside.authoring.forward import emit_forward
from bedside.authoring.graph import Graph
from bedside.authoring.net import Net
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
from bedside.core.bundle.parameters import NORM_EPSILON
from bedside.core.bundle.quantise import UNSIGNED_ZERO_POINT
from bedside.core.bundle.tensors import Array


def build_float_graph(net: Net, parameters: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """Return the bytes of `infer_float.onnx`; its initialisers are the parameters under their own names.

    They are inputs too: what onnxruntime takes for a constant, it folds into the nodes behind it (here the reshaping of
    a convolution's weight) before a device's own values are laid over it, which then go unused in silence.
    """
    graph = Graph("infer_float")
    steps = net.steps
    x = graph.input("x", ("N", *net.input_shape))
    for name, array in parameters.items():
        graph.input(graph.initialiser(name, array), array.shape)
    logits = emit_forward(graph, steps, x, None).logits
    graph.op("Identity", logits, output="logits")
    graph.output("logits", ("N", *steps[-1].after))
    return graph.serialise()


def build_int8_graph(net: Net, quantised: Mapping[str, Array]) -> bytes:
    """Return the bytes of `infer.onnx`; `quantised` comes from `quantise_parameters`."""
    graph = Graph("infer")
    steps = net.steps
    x = graph.input("x", ("N", *net.input_shape))
    for name, array in quantised.items():
        graph.initialiser(name, array)
    if isinstance(steps[0].layer, Standardise):  # a factor per channel fits where channels are the last axis
        norm = steps[0].norm
        x = graph.op("Add", graph.op("Mul", x, f"mul{norm}"), f"add{norm}")
    x = graph.op("Transpose", x, perm=(0, 2, 1))
    given: list[str] = []
    for step in steps:
        x = _emit(graph, step, x, given)
        given.append(x)
    graph.op("Identity", x, output="logits")
    graph.output("logits", ("N", *steps[-1].after))
    return graph.serialise()


def _emit(graph: Graph, step: Step, x: str, given: Sequence[str]) -> str:
    match step.layer:
        case Conv1d() | DepthwiseConv1d():
            return _convolved(graph, step, x)
        case Dense():
            return graph.op("Gemm", *_dequantised(graph, step, x, channel_axis=1))
        case Relu():
            return graph.op("Relu", x)
        case MaxPool():
            return graph.op("MaxPool", x, kernel_shape=(2,), strides=(2,))
        case GlobalAveragePool():
            return graph.op("Flatten", graph.op("GlobalAveragePool", x))
        case Flatten():  # the dense layer after it was trained on channels-last values
            return graph.op("Flatten", graph.op("Transpose", x, perm=(0, 2, 1)))
        case Add():
            skipped = given[step.skip]
            return graph.op("Add", x, skipped if step.kernel is None else _convolved(graph, step, skipped))
        case GroupNorm(groups=groups):
            return _group_normalised(graph, step, x, groups)
        case BatchNorm() | Standardise():  # in the scales and biases of the layer before; in front of the net
            return x


def _convolved(graph: Graph, step: Step, x: str) -> str:
    assert step.kernel is not None  # noqa: S101 - narrows the type; the caller chose by it
    form, taps, stride, inputs, _ = step.kernel
    return graph.op(
        "Conv",
        *_dequantised(graph, step, x, channel_axis=0),
        kernel_shape=(taps,),
        pads=(taps // 2, taps // 2),
        strides=(stride,),
        group=inputs if form == "depthwise" else 1,
    )


def _group_normalised(graph: Graph, step: Step, x: str, groups: int) -> str:
    """Each group as one channel of an instance norm; then gamma and beta, as a batch norm of mean 0 and variance 1.

    Operators that take one value per channel as it is: a reshaping of gamma would be folded before a device's own
    value is laid over it.
    """
    length, channels = step.before
    grouped = graph.op("Reshape", x, graph.ints(0, groups, -1))
    unit = [graph.constant(np.full(groups, value, np.float32)) for value in (1, 0)]
    normal = graph.op("InstanceNormalization", grouped, *unit, epsilon=NORM_EPSILON)
    normal = graph.op("Reshape", normal, graph.ints(0, channels, length))
    neutral = [graph.constant(np.full(channels, value, np.float32)) for value in (0, 1)]
    affine = (f"gamma{step.norm}", f"beta{step.norm}")
    return graph.op("BatchNormalization", normal, *affine, *neutral, epsilon=0.0)


def _dequantised(graph: Graph, step: Step, x: str, channel_axis: int) -> tuple[str, str, str]:
    """Input, weight and bias, each behind the nodes that tell onnxruntime which integers they are."""
    weight, bias, units = f"w{step.order}", f"b{step.order}", step.after[-1]
    scale = f"{weight}.input_scale"
    zero = graph.constant(np.array(0 if step.signed else UNSIGNED_ZERO_POINT, np.int8))
    whole = graph.op("QuantizeLinear", x, scale, zero)
    zeros = graph.constant(np.zeros(units, np.int8))
    wide_zeros = graph.constant(np.zeros(units, np.int32))
    return (
        graph.op("DequantizeLinear", whole, scale, zero),
        graph.op("DequantizeLinear", f"{weight}.q", f"{weight}.scale", zeros, axis=channel_axis),
        graph.op("DequantizeLinear", f"{bias}.q", f"{bias}.scale", wide_zeros, axis=0),
    )
