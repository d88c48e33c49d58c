"""A training graph in double precision: where float32 programs round apart, it shows whether the rules are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from bedside.core.bundle.parameters import TensorSpec
from bedside.core.bundle.training import LOSS, NEXT, START
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.runtimes.onnx import open_session, session_options
from bedside.ondevice.training.step import Rates, Targets

Float64 = npt.NDArray[np.float64]

_FLOAT: Final = onnx.TensorProto.FLOAT
_DOUBLE: Final = onnx.TensorProto.DOUBLE


def in_double(graph: bytes) -> bytes:
    """The same nodes with double in the place of float, in what they are given, hold and cast to."""
    model = onnx.load_from_string(graph)
    for put in (*model.graph.input, *model.graph.output):
        if put.type.tensor_type.elem_type == _FLOAT:
            put.type.tensor_type.elem_type = _DOUBLE
    levels = {node.input[2] for node in model.graph.node if node.op_type == "OneHot"}
    for tensor in model.graph.initializer:
        if tensor.data_type == _FLOAT and tensor.name not in levels:
            wide = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = _DOUBLE
        model.graph.node.append(node)
        if node.op_type == "OneHot":  # onnxruntime has none in double
            name, model.graph.node[-1].output[0] = node.output[0], f"{node.output[0]}.single"
            model.graph.node.append(helper.make_node("Cast", [f"{name}.single"], [name], to=_DOUBLE))
    data: bytes = model.SerializeToString()
    return data


def train_in_double(
    graph: bytes,
    parameters: Mapping[str, Float32],
    optimiser: tuple[TensorSpec, ...],
    batch: tuple[Float32, Targets],
    rates: Rates,
    steps: int,
) -> dict[str, Float64]:
    """Run `in_double` of a graph of level Q0 on one batch; returns `loss` (steps,) and the parameters afterwards."""
    session = open_session(in_double(graph), session_options())
    names = [output.name for output in session.get_outputs()]
    wanted = {put.name for put in session.get_inputs()}
    x, y = batch
    wide = {name: array.astype(np.float64) for name, array in parameters.items()}
    feeds: dict[str, npt.NDArray[np.generic]] = {
        "x": x.astype(np.float64),
        "y": y if y.dtype == np.int64 else y.astype(np.float64),
        "lr": np.array(rates.learning_rate),
        "momentum": np.array(rates.momentum),
        "mu": np.array(rates.proximal_mu),
        "clip": np.array(np.inf),
        **wide,
        **{START + name: array for name, array in wide.items()},
        **{spec.name: np.zeros(spec.shape) for spec in optimiser},
    }
    feeds = {name: array for name, array in feeds.items() if name in wanted}
    losses = []
    for _ in range(steps):
        given = dict(zip(names, session.run(names, feeds), strict=True))
        losses.append(given.pop(LOSS))
        feeds |= {name.removesuffix(NEXT): array for name, array in given.items()}
    after = {name: np.asarray(feeds.get(name, array), np.float64) for name, array in wide.items()}
    return {LOSS: np.array(losses, np.float64), **after}
