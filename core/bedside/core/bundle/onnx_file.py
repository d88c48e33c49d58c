"""What a bundle's ONNX files may not do: have their tensors in other files.

The format lets a tensor name a file and a place in it, and onnxruntime reads that file, relative to wherever the
process runs: a graph could train a device's key into its weights. So nothing reaches onnxruntime that was not looked
through here. Only what leads to a tensor is read; onnxruntime judges the rest.

Source: onnx.proto3 of ONNX 1.17 (field numbers); the protocol buffers encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from bedside.core.bundle.bounds import MAX_GRAPH_DEPTH, MAX_GRAPH_FIELDS
from bedside.core.errors import MalformedError

_Kind = Literal["model", "graph", "node", "attribute", "tensor", "sparse", "function", "training"]

_INSIDE: Final[dict[_Kind, dict[int, _Kind]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {},
}
"""Which fields of a message hold messages that lead to a tensor."""

_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_VARINT, _EIGHT_BYTES, WIRE_BYTES, _FOUR_BYTES = 0, 1, 2, 5
_TAG_BYTES: Final = 5
_VARINT_BYTES: Final = 10


def check_self_contained(model: bytes) -> None:
    """Check that every tensor of an ONNX file is in it.

    Raises:
        MalformedError: `bad-graph`: one is not, the bytes are no protocol buffer, or it has too many fields.
    """
    waiting: list[tuple[_Kind, int, int, int]] = [("model", 0, len(model), 0)]
    fields = 0
    while waiting:
        kind, start, end, depth = waiting.pop()
        inside = _INSIDE[kind]
        for number, wire, begin, value in fields_of(model, start, end):
            fields += 1
            if fields > MAX_GRAPH_FIELDS or depth > MAX_GRAPH_DEPTH:
                raise bad_graph(f"has more than {MAX_GRAPH_FIELDS} fields, or is nested deeper than {MAX_GRAPH_DEPTH}")
            if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)):
                raise bad_graph("has tensors in another file")
            if wire == WIRE_BYTES and number in inside:
                waiting.append((inside[number], begin, value, depth + 1))


def fields_of(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, first byte of the content, and its value, or for bytes their end.

    Raises:
        MalformedError: `bad-graph`: the bytes are no protocol buffer.
    """
    while at < end:
        tag, at = _varint(data, at, end, _TAG_BYTES)
        number, wire = (tag & 0xFFFFFFFF) >> 3, tag & 7
        begin, value = at, 0
        if wire == _VARINT:
            value, at = _varint(data, at, end, _VARINT_BYTES)
        elif wire == WIRE_BYTES:
            size, begin = _varint(data, at, end, _TAG_BYTES)
            value = at = begin + size
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if wire == _EIGHT_BYTES else 4
        else:
            raise bad_graph("is no protocol buffer")
        if at > end or not number:
            raise bad_graph("is no protocol buffer")
        yield number, wire, begin, value


def _varint(data: bytes, at: int, end: int, most: int) -> tuple[int, int]:
    value = 0
    for place in range(most):
        if at + place >= end:
            break
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise bad_graph("is no protocol buffer")


def bad_graph(what: str) -> MalformedError:
    """The error of a file that is no graph of a bundle."""
    return MalformedError(
        "bad-graph", f"an ONNX graph {what}", remedy="build the bundle again with `bedside model build`"
    )
