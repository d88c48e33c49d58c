"""A small writer of ONNX graphs: values are names, constants are shared, the same calls give the same bytes.

Source: ONNX operator set 18, IR version 9, which every onnxruntime that Bedside accepts can read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bedside.core.bundle.tensors import Array

OPSET: Final = 18
IR_VERSION: Final = 9

Dtype = Literal["float32", "int64", "int8", "uint16"]
_ELEMENTS: Final[dict[Dtype, int]] = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int8": TensorProto.INT8,
    "uint16": TensorProto.UINT16,
}

Attribute = int | float | str | Sequence[int]
Dimension = int | str


class Graph:
    """Nodes, constants, inputs and outputs of one graph in the making."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._initialisers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Attribute) -> str:
        """Append a node with one output and return that output's name."""
        name = output or f"{kind.lower()}_{len(self._nodes)}"
        node = helper.make_node(kind, list(inputs), [name], name=name, **attributes)  # type: ignore[arg-type] # its stub takes the attributes for its own options
        self._nodes.append(node)
        return name

    def split(self, value: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Cut `value` along `axis` into pieces of `sizes`."""
        names = [f"split_{len(self._nodes)}_{part}" for part in range(len(sizes))]
        self._nodes.append(helper.make_node("Split", [value, self.ints(*sizes)], names, name=names[0], axis=axis))
        return names

    def constant(self, array: Array) -> str:
        """Return the name of a constant with the content of `array`."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initialiser(f"const_{len(self._constants)}", array)
        return self._constants[key]

    def number(self, value: float) -> str:
        """Return the name of a float32 scalar constant."""
        return self.constant(np.array(value, np.float32))

    def ints(self, *values: int) -> str:
        """Return the name of an int64 vector constant: axes, shapes, slices."""
        return self.constant(np.array(values, np.int64))

    def index(self, value: int) -> str:
        """Return the name of an int64 scalar constant."""
        return self.constant(np.array(value, np.int64))

    def initialiser(self, name: str, array: Array) -> str:
        """Add a named tensor that a session may replace."""
        self._initialisers.append(numpy_helper.from_array(array, name))
        return name

    def input(self, name: str, shape: Sequence[Dimension], dtype: Dtype = "float32") -> str:
        """Add an input."""
        self._inputs.append(helper.make_tensor_value_info(name, _ELEMENTS[dtype], list(shape)))
        return name

    def output(self, name: str, shape: Sequence[Dimension], dtype: Dtype = "float32") -> None:
        """Declare `name` an output."""
        self._outputs.append(helper.make_tensor_value_info(name, _ELEMENTS[dtype], list(shape)))

    def serialise(self, notes: Mapping[str, str] | None = None) -> bytes:
        """Drop what no output needs, check the graph with the full ONNX checker and return the model's bytes."""
        nodes, initialisers = self._needed()
        graph = helper.make_graph(nodes, self._name, self._inputs, self._outputs, initialisers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="bedside"
        )
        if notes:
            helper.set_model_props(model, dict(notes))
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def _needed(self) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """The nodes that lead to an output, and the tensors that those read; onnxruntime would compute the others."""
        wanted = {output.name for output in self._outputs}
        nodes = []
        for node in reversed(self._nodes):
            if not wanted.isdisjoint(node.output):
                nodes.append(node)
                wanted.update(node.input)
        return nodes[::-1], [tensor for tensor in self._initialisers if tensor.name in wanted]
