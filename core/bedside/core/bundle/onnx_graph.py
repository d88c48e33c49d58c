"""What the ONNX graphs of a bundle may consist of: what the layer list calls for, and nothing whose cost follows data.

A graph can reproduce every golden vector and still do something else with another window: loop for ever, or fill the
memory, behind a comparison that golden windows never meet. So a graph is a flat list of known operators, none of which
chooses, repeats or calls, and every operand that decides a shape is a constant of the file. What it costs then depends
on how many windows it is given, and a replay has seen it.

Source: onnx.proto3 of ONNX 1.17 (field numbers); ONNX operator set 18 (which operands decide shapes).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from bedside.core.bundle.bounds import MAX_GRAPH_CONSTANT_BYTES, MAX_GRAPH_FIELDS, MAX_GRAPH_NODES
from bedside.core.bundle.onnx_file import WIRE_BYTES, bad_graph, fields_of

OPSET: Final = 18
"""Of the default domain, which is the only one."""

INT8_OPERATORS: Final = frozenset(
    {
        "Add",
        "BatchNormalization",
        "Conv",
        "DequantizeLinear",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "InstanceNormalization",
        "MaxPool",
        "Mul",
        "QuantizeLinear",
        "Relu",
        "Reshape",
        "Transpose",
    }
)
"""Of `infer.onnx`."""

FLOAT_OPERATORS: Final = frozenset(
    {
        "Add",
        "Concat",
        "Expand",
        "Gemm",
        "Identity",
        "Max",
        "Mul",
        "Neg",
        "Pad",
        "Reciprocal",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Slice",
        "Split",
        "Sqrt",
        "Sub",
        "Sum",
    }
)
"""Of `infer_float.onnx`."""

TRAINING_OPERATORS: Final = FLOAT_OPERATORS | frozenset(
    {
        "Abs",
        "Cast",
        "Clip",
        "Div",
        "Exp",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "LessOrEqual",
        "LogSoftmax",
        "Min",
        "OneHot",
        "Pow",
        "ReduceMax",
        "ReduceSum",
        "ReduceSumSquare",
        "Round",
        "Sigmoid",
        "Size",
        "Softplus",
    }
)
"""Of training graphs."""

_SHAPING: Final[Mapping[str, tuple[int, ...]]] = {
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
}
"""Which inputs of an operator decide the shape of what it gives."""

_INT64: Final = 7
_MODEL = frozenset({1, 2, 7, 8, 14})
_GRAPH = frozenset({1, 2, 5, 11, 12})
_NODE = frozenset({1, 2, 3, 4, 5})
_ATTRIBUTE = frozenset({1, 2, 3, 8, 20})
_TENSOR = frozenset({1, 2, 8, 9})
_OPERATOR_SET = frozenset({1, 2})
"""Fields that are read or harmless: of an attribute a number or whole numbers, of a tensor its form and raw bytes."""


class Rules(NamedTuple):
    """What one file of a bundle may hold.

    Attributes:
        operators: of the default domain.
        inputs: names of exactly its inputs.
        outputs: likewise.
    """

    operators: frozenset[str]
    inputs: Collection[str]
    outputs: Collection[str]


class _Field(NamedTuple):
    number: int
    wire: int
    begin: int
    value: int


class _Node(NamedTuple):
    kind: str
    inputs: list[str]
    outputs: list[str]


class _Reader:
    """Messages of one file; every field that is met counts."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = MAX_GRAPH_FIELDS

    def whole(self) -> _Field:
        """The file as a message."""
        return _Field(0, WIRE_BYTES, 0, len(self.data))

    def fields(self, message: _Field, allowed: frozenset[int], what: str) -> list[_Field]:
        if message.wire != WIRE_BYTES:
            raise bad_graph("is no protocol buffer")
        found = []
        for field in fields_of(self.data, message.begin, message.value):
            self._left -= 1
            if self._left < 0:
                raise bad_graph(f"has more than {MAX_GRAPH_FIELDS} fields")
            if field[0] not in allowed:
                raise bad_graph(f"has {what} with field {field[0]}, which none of ours has")
            found.append(_Field(*field))
        return found

    def text(self, field: _Field) -> str:
        if field.wire != WIRE_BYTES:
            raise bad_graph("is no protocol buffer")
        return self.data[field.begin : field.value].decode("latin-1")


def check_graph(model: bytes, rules: Rules) -> None:
    """Check one ONNX file before a runtime sees it.

    Raises:
        MalformedError: `bad-graph`: the sentence names the operator, or what else it is.
    """
    reader = _Reader(model)
    fields = reader.fields(reader.whole(), _MODEL, "a model")
    sets = [_operator_set(reader, field) for field in fields if field.number == 8]
    if sets != [("", OPSET)]:
        raise bad_graph(f"has operator sets other than {OPSET} of the default domain")
    graphs = [field for field in fields if field.number == 7]
    if len(graphs) != 1:
        raise bad_graph("has no graph, or more than one")
    parts = reader.fields(graphs[0], _GRAPH, "a graph")
    inputs = [_name(reader, part) for part in parts if part.number == 11]
    outputs = [_name(reader, part) for part in parts if part.number == 12]
    for found, wanted, what in ((inputs, rules.inputs, "inputs"), (outputs, rules.outputs, "outputs")):
        if sorted(found) != sorted(wanted):
            raise bad_graph(f"has other {what} than the manifest calls for")
    shapes = _whole_constants(reader, [part for part in parts if part.number == 5]) - set(inputs)
    nodes = [part for part in parts if part.number == 1]
    if len(nodes) > MAX_GRAPH_NODES:
        raise bad_graph(f"has {len(nodes)} nodes, and {MAX_GRAPH_NODES} are allowed")
    read = [_node(reader, node, rules.operators) for node in nodes]
    shapes -= {name for node in read for name in node.outputs}
    for node in read:
        _check_shape(node, shapes)


def _operator_set(reader: _Reader, field: _Field) -> tuple[str, int]:
    domain, version = "", 0
    for part in reader.fields(field, _OPERATOR_SET, "an operator set"):
        if part.number == 1:
            domain = reader.text(part)
        else:
            version = part.value
    return domain, version


def _name(reader: _Reader, field: _Field) -> str:
    """Of a value: its first field, and only once."""
    names = [one for one in reader.fields(field, frozenset({1, 2}), "a value") if one.number == 1]
    if len(names) != 1:
        raise bad_graph("has an input or output without one name")
    return reader.text(names[0])


def _whole_constants(reader: _Reader, initialisers: list[_Field]) -> set[str]:
    """Names of the int64 constants, when all of them are bounded; parameters are of other types."""
    names: dict[str, bool] = {}
    for initialiser in initialisers:
        name, kinds = "", []
        for field in reader.fields(initialiser, _TENSOR, "a tensor"):
            if field.number == 8:
                name = reader.text(field)
            elif field.number == 2:
                kinds.append(field.value)
        if name in names:
            raise bad_graph(f"has two tensors {name[:64]!r}")
        names[name] = kinds == [_INT64]
    if sum(one.value - one.begin for one in initialisers) > MAX_GRAPH_CONSTANT_BYTES:
        raise bad_graph(f"has constants of more than {MAX_GRAPH_CONSTANT_BYTES} bytes")
    return {name for name, whole in names.items() if whole}


def _node(reader: _Reader, node: _Field, operators: frozenset[str]) -> _Node:
    kinds: list[str] = []
    inputs: list[str] = []
    outputs: list[str] = []
    for field in reader.fields(node, _NODE, "a node"):
        if field.number == 5:
            reader.fields(field, _ATTRIBUTE, "an attribute")
        elif field.number != 3:
            {1: inputs, 2: outputs, 4: kinds}[field.number].append(reader.text(field))
    kind = kinds[0] if len(kinds) == 1 else ""
    if kind not in operators:
        raise bad_graph(f"has the operator {kind[:64]!r}, which is none of this file's")
    return _Node(kind, inputs, outputs)


def _check_shape(node: _Node, shapes: set[str]) -> None:
    for place in _SHAPING.get(node.kind, ()):
        if place < len(node.inputs) and node.inputs[place] and node.inputs[place] not in shapes:
            raise bad_graph(f"has the operator {node.kind!r} with a shape that is computed or fed, and no constant")
