"""What `infer.tflite` may consist of: one flat graph of known operators, within its own bytes.

As for ONNX (`onnx_graph`), nothing in it may choose, repeat or call, and shapes are constants. Every table and vector
is looked at through a reader that checks its place first; what a device writes over with its own parameters may be
contents and scales alone, so that a refresh cannot turn the file into another graph.

Source: the TensorFlow Lite schema, version 3 (field numbers, operator codes); the FlatBuffers binary format.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping
from typing import Final

from bedside.core.bundle.bounds import MAX_GRAPH_FIELDS, MAX_GRAPH_NODES, MAX_TENSOR_RANK, MAX_TFLITE_VALUES
from bedside.core.bundle.patch import Patch
from bedside.core.errors import MalformedError

OPERATORS: Final[Mapping[int, str]] = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    17: "MAX_POOL_2D",
    18: "MUL",
    19: "RELU",
    22: "RESHAPE",
    34: "PAD",
    40: "MEAN",
    41: "SUB",
    76: "RSQRT",
    114: "QUANTIZE",
}
"""By their builtin codes."""

_SHAPED_BY: Final[Mapping[int, int]] = {22: 1, 34: 1, 40: 1}
"""Which input of an operator decides the shape of what it gives."""

_IDENTIFIER: Final = b"TFL3"
_VERSION: Final = 3
_ALLOWED: Final[Mapping[str, frozenset[int]]] = {
    "model": frozenset({0, 1, 2, 3, 4}),
    "operator code": frozenset({0, 2, 3}),
    "graph": frozenset({0, 1, 2, 3}),
    "tensor": frozenset({0, 1, 2, 3, 4}),
    "quantisation": frozenset({2, 3, 6}),
    "buffer": frozenset({0}),
    "operator": frozenset({0, 1, 2, 3, 4}),
    "options": frozenset(range(16)),
}
"""Fields of each table that we write; the others are other graphs, custom operators, variables, places elsewhere."""

Place = tuple[int, int]
"""First byte of something and the byte after it."""


class _Reader:
    """Tables and vectors of one file; each lies in it, and all of them together are bounded."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read: list[Place] = []
        self._left = MAX_GRAPH_FIELDS

    def number(self, at: int, form: str) -> int:
        """One little-endian number."""
        if not 0 <= at <= len(self.data) - struct.calcsize(form):
            raise _bad("points outside the file")
        return int(struct.unpack_from(form, self.data, at)[0])

    def take(self, begin: int, end: int) -> None:
        """Note that these bytes are the file's form, which no parameter may be written over."""
        self._left -= 1
        if self._left < 0:
            raise _bad(f"has more than {MAX_GRAPH_FIELDS} parts")
        if not 0 <= begin <= end <= len(self.data):
            raise _bad("points outside the file")
        self.read.append((begin, end))

    def follow(self, at: int) -> int:
        """Where an offset leads."""
        return at + self.number(at, "<I")

    def table(self, at: int, kind: str) -> dict[int, int]:
        """Places of the fields of a table that it has."""
        head = at - self.number(at, "<i")
        head_bytes, body_bytes = self.number(head, "<H"), self.number(head + 2, "<H")
        if head_bytes < 4 or head_bytes % 2 or body_bytes < 4:
            raise _bad(f"has a broken {kind}")
        self.take(head, head + head_bytes)
        self.take(at, at + body_bytes)
        fields = {}
        for field in range((head_bytes - 4) // 2):
            offset = self.number(head + 4 + 2 * field, "<H")
            if not offset:
                continue
            if field not in _ALLOWED[kind] or not 4 <= offset < body_bytes:
                raise _bad(f"has a {kind} with field {field}, which none of ours has")
            fields[field] = at + offset
        return fields

    def vector(self, fields: Mapping[int, int], field: int, width: int, *, form: bool = True) -> Place:
        """Where the elements of a vector lie; an empty place when the table has none."""
        if field not in fields:
            return 0, 0
        at = self.follow(fields[field])
        begin, size = at + 4, width * self.number(at, "<I")
        self.take(at, begin)
        if begin + size > len(self.data):
            raise _bad("points outside the file")
        if form:
            self.take(begin, begin + size)
        return begin, begin + size

    def whole(self, fields: Mapping[int, int], field: int) -> tuple[int, ...]:
        """A vector of int32, of as many as may be read."""
        begin, end = self.vector(fields, field, 4)
        self._left -= (end - begin) // 4
        if self._left < 0:
            raise _bad(f"has more than {MAX_GRAPH_FIELDS} parts")
        return struct.unpack_from(f"<{(end - begin) // 4}i", self.data, begin)

    def tables(self, fields: Mapping[int, int], field: int, kind: str) -> list[dict[int, int]]:
        """The tables of a vector of them."""
        begin, end = self.vector(fields, field, 4)
        if (end - begin) // 4 > MAX_GRAPH_NODES:
            raise _bad(f"has more than {MAX_GRAPH_NODES} of {kind}")
        return [self.table(self.follow(at), kind) for at in range(begin, end, 4)]


def check_tflite(model: bytes, patches: Collection[Patch]) -> None:
    """Check `infer.tflite` before a runtime sees it.

    Args:
        model: the file.
        patches: where a refresh writes: each must be the whole of a constant's content or of a tensor's scales.

    Raises:
        MalformedError: `bad-graph`: the sentence names the operator, or what else it is.
    """
    reader = _Reader(model)
    if model[4:8] != _IDENTIFIER:
        raise _bad("is no file of that format")
    reader.take(0, 8)
    root = reader.table(reader.follow(0), "model")
    if 0 not in root or reader.number(root[0], "<I") != _VERSION:
        raise _bad(f"is not of version {_VERSION}")
    reader.vector(root, 3, 1)
    codes = [_operator_code(reader, fields) for fields in reader.tables(root, 1, "operator code")]
    buffers = [reader.vector(fields, 0, 1, form=False) for fields in reader.tables(root, 4, "buffer")]
    graphs = reader.tables(root, 2, "graph")
    if len(graphs) != 1:
        raise _bad(f"has {len(graphs)} graphs, not one")
    filled, scales = _tensors(reader, graphs[0], buffers)
    shapes = _operators(reader, graphs[0], codes, filled)
    for put in (1, 2):
        if len(reader.whole(graphs[0], put)) != 1:
            raise _bad("has not one input and one output")
    contents = {place for number, place in enumerate(filled) if place and number not in shapes} - {
        filled[number] for number in shapes
    }
    _check_patches(patches, contents | scales, reader.read, [place for place in buffers if place != (0, 0)])


def _operator_code(reader: _Reader, fields: Mapping[int, int]) -> int:
    """A runtime takes the larger of the two codes."""
    short = reader.number(fields[0], "<b") if 0 in fields else 0
    code = max(short, reader.number(fields[3], "<i") if 3 in fields else 0)
    if code not in OPERATORS:
        raise _bad(f"has the operator {code}, which is none of {', '.join(OPERATORS.values())}")
    return code


def _tensors(reader: _Reader, graph: Mapping[int, int], buffers: list[Place]) -> tuple[list[Place | None], set[Place]]:
    """For each tensor where its constant content lies, and where scales lie."""
    filled: list[Place | None] = []
    scales: set[Place] = set()
    values = 0
    for fields in reader.tables(graph, 0, "tensor"):
        shape = reader.whole(fields, 0)
        if len(shape) > MAX_TENSOR_RANK or any(size < 0 for size in shape):
            raise _bad("has a tensor of an unknown shape")
        values += math.prod(shape)
        reader.vector(fields, 3, 1)
        if 4 in fields:
            quantisation = reader.table(reader.follow(fields[4]), "quantisation")
            scales.add(reader.vector(quantisation, 2, 4, form=False))
            reader.vector(quantisation, 3, 8)
        number = reader.number(fields[2], "<I") if 2 in fields else 0
        if number >= len(buffers):
            raise _bad("has a tensor without its buffer")
        filled.append(buffers[number] if buffers[number] != (0, 0) else None)
    if values > MAX_TFLITE_VALUES:
        raise _bad(f"has tensors of more than {MAX_TFLITE_VALUES} values")
    return filled, scales - {(0, 0)}


def _operators(reader: _Reader, graph: Mapping[int, int], codes: list[int], filled: list[Place | None]) -> set[int]:
    """Numbers of the constant tensors that decide shapes."""
    shapes = set()
    for fields in reader.tables(graph, 3, "operator"):
        index = reader.number(fields[0], "<I") if 0 in fields else 0
        if index >= len(codes):
            raise _bad("has an operator without a code")
        code, inputs = codes[index], reader.whole(fields, 1)
        reader.whole(fields, 2)
        if 4 in fields:
            reader.table(reader.follow(fields[4]), "options")
        place = _SHAPED_BY.get(code)
        if place is None:
            continue
        if not (place < len(inputs) and 0 <= inputs[place] < len(filled)) or filled[inputs[place]] is None:
            raise _bad(f"has the operator {OPERATORS[code]} with a shape that is no constant")
        shapes.add(inputs[place])
    return shapes


def _check_patches(
    patches: Collection[Patch], free: Collection[Place], form: list[Place], contents: list[Place]
) -> None:
    """A patch is all of a constant or of scales, and touches neither the form of the file nor another constant."""
    places = {(patch.offset, patch.offset + patch.size) for patch in patches}
    if not places <= set(free):
        raise _bad("is written over where there is neither a constant nor a scale")
    kept = {place for place in (*form, *contents) if place[0] < place[1]} - places
    reached = written = 0
    for begin, end, patched in sorted([(*place, False) for place in kept] + [(*place, True) for place in places]):
        if begin < (reached if patched else written):
            raise _bad("is written over where its form lies")
        reached = max(reached, end)
        written = end if patched else written


def _bad(what: str) -> MalformedError:
    return MalformedError(
        "bad-graph", f"a TFLite graph {what}", remedy="build the bundle again with `bedside model build`"
    )
