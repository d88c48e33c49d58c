"""`infer.onnx` (int8, QDQ form) and `infer_float.onnx`, both from (N, L, C) windows to logits.

Every tensor that follows from the parameters is an initialiser under a fixed name, so that a device can lay its own
values over it (`SessionOptions.add_initializer`) without any model toolkit. The int8 graph is channels-first, because
onnxruntime fuses Conv between (de)quantising nodes; the float one repeats the training graph's forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bedside.authoring.forward import emit_forward
from bedside.authoring.graph import Graph
from bedside.authoring.net import Net
from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu, Step
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
    x = graph.op("Transpose", x, perm=(0, 2, 1))
    for step in steps:
        x = _emit(graph, step, x)
    graph.op("Identity", x, output="logits")
    graph.output("logits", ("N", *steps[-1].after))
    return graph.serialise()


def _emit(graph: Graph, step: Step, x: str) -> str:
    match step.layer:
        case Conv1d(taps=taps):
            margin = (taps // 2, taps // 2)
            return graph.op("Conv", *_dequantised(graph, step, x, channel_axis=0), kernel_shape=(taps,), pads=margin)
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
        case _:
            raise NotImplementedError(step.layer)


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
