"""A small writer of `.tflite` files: tensors, constants and operators in, bytes and the places of the constants out.

The schema's bindings come with ai-edge-litert. What follows from the parameters is written once and found again in the
finished file, so that a device can write over it.

Source: the TensorFlow Lite schema, version 3; the FlatBuffers binary format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from bedside.core.bundle.patch import Patch
from bedside.core.bundle.tensors import Array

BuiltinOperator = schema.BuiltinOperator
TensorType = schema.TensorType

Table = tuple[Patch, ...]
_SCHEMA_VERSION: Final = 3
_IDENTIFIER: Final = b"TFL3"
_ALIGNMENT_BYTES: Final = 16
_ONE_BYTE_CODES: Final = 127
_FLOAT32_BYTES: Final = 4
_VERSIONS: Final = {
    BuiltinOperator.CONV_2D: 3,
    BuiltinOperator.DEPTHWISE_CONV_2D: 3,
    BuiltinOperator.PAD: 2,
    BuiltinOperator.QUANTIZE: 1,
    BuiltinOperator.DEQUANTIZE: 2,
    BuiltinOperator.MAX_POOL_2D: 2,
    BuiltinOperator.AVERAGE_POOL_2D: 1,
    BuiltinOperator.RESHAPE: 1,
    BuiltinOperator.RELU: 1,
    BuiltinOperator.ADD: 1,
    BuiltinOperator.SUB: 1,
    BuiltinOperator.MUL: 1,
    BuiltinOperator.MEAN: 1,
    BuiltinOperator.RSQRT: 1,
}
"""The first version of each operator that takes what is written here: the oldest runtime reads it."""

_ARITHMETIC: Final = {
    BuiltinOperator.ADD: (schema.BuiltinOptions.AddOptions, schema.AddOptionsT),
    BuiltinOperator.SUB: (schema.BuiltinOptions.SubOptions, schema.SubOptionsT),
    BuiltinOperator.MUL: (schema.BuiltinOptions.MulOptions, schema.MulOptionsT),
}


class Content(NamedTuple):
    """What a constant holds: a tensor by name, its axes in the file's order."""

    tensor: str
    axes: tuple[int, ...] = ()


class TfliteFile:
    """One graph in the making.

    Args:
        tensors: what constants and scales are filled with, by name.
    """

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._contents = tensors
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._buffers = [_AlignedBuffer()]  # the first one is empty: that of every tensor that is computed
        self._codes: list[int] = []
        self._filled: dict[int, Content] = {}
        self._scales: dict[int, str] = {}

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: int,
        *,
        content: Content | None = None,
        scale: str = "",
        zero_point: int = 0,
        scale_axis: int = 0,
    ) -> int:
        """Add a tensor and return its number; one scale for all of it, or one for each index of an axis."""
        number = len(self._graph.tensors)
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = (name or f"t{number}").encode(), list(shape), kind
        if content is not None:
            array = self._contents[content.tensor]
            ordered = array.transpose(content.axes) if content.axes else array
            tensor.buffer = self._buffer(np.ascontiguousarray(ordered).tobytes())
            self._filled[tensor.buffer] = content
        if scale:
            values = np.atleast_1d(self._contents[scale]).astype(np.float32)
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = values
            tensor.quantization.zeroPoint = np.full(len(values), zero_point, np.int64)
            tensor.quantization.quantizedDimension = scale_axis
            self._scales[number] = scale
        self._graph.tensors.append(tensor)
        return number

    def operator(
        self, code: int, inputs: Sequence[int], output: int, options: tuple[int, object] | None = None
    ) -> None:
        """Append an operator with one output."""
        if code not in self._codes:
            self._codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.index(code)
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptionsType, operator.builtinOptions = options
        self._graph.operators.append(operator)

    def constant(self, array: npt.NDArray[np.float32] | npt.NDArray[np.int32]) -> int:
        """Add a tensor that follows from the net alone and return its number."""
        kind = TensorType.FLOAT32 if array.dtype == np.float32 else TensorType.INT32
        number = self.tensor("", array.shape, kind)
        self._graph.tensors[number].buffer = self._buffer(array.tobytes())
        return number

    def arithmetic(self, code: int, inputs: Sequence[int], output: int) -> None:
        """Append ADD, SUB or MUL of two float tensors, the second repeated along axes that it lacks."""
        kind, options = _ARITHMETIC[code]
        self.operator(code, inputs, output, (kind, options()))

    def convolution(self, inputs: Sequence[int], output: int, *, depthwise: bool, stride: int, padded: bool) -> None:
        """Append a convolution of (input, weight, bias); with stride 1 it keeps the length unless `padded` before."""
        options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        options.padding = schema.Padding.VALID if padded else schema.Padding.SAME
        options.strideW, options.strideH = stride, 1
        if depthwise:
            options.depthMultiplier = 1
            code, kind = BuiltinOperator.DEPTHWISE_CONV_2D, schema.BuiltinOptions.DepthwiseConv2DOptions
        else:
            code, kind = BuiltinOperator.CONV_2D, schema.BuiltinOptions.Conv2DOptions
        self.operator(code, inputs, output, (kind, options))

    def pad(self, value: int, output: int, before: int, after: int) -> None:
        """Append zeros round axis 2 of a four-dimensional tensor, whatever its integers are for zero."""
        margins = np.array([(0, 0), (0, 0), (before, after), (0, 0)], np.int32)
        options = (schema.BuiltinOptions.PadOptions, schema.PadOptionsT())
        self.operator(BuiltinOperator.PAD, [value, self.constant(margins)], output, options)

    def mean(self, value: int, output: int, axes: Sequence[int]) -> None:
        """Append a mean over `axes`, which stay with length one."""
        options = schema.ReducerOptionsT()
        options.keepDims = True
        inputs = [value, self.constant(np.array(axes, np.int32))]
        self.operator(BuiltinOperator.MEAN, inputs, output, (schema.BuiltinOptions.ReducerOptions, options))

    def pool(self, code: int, value: int, output: int, samples: int) -> None:
        """Append a pool over `samples` neighbours, which do not overlap."""
        options = schema.Pool2DOptionsT()
        options.padding, options.strideH, options.filterHeight = schema.Padding.VALID, 1, 1
        options.strideW = options.filterWidth = samples
        self.operator(code, [value], output, (schema.BuiltinOptions.Pool2DOptions, options))

    def reshape(self, value: int, output: int) -> None:
        """Append a reshaping to the shape of `output`."""
        wanted = np.array(self._graph.tensors[output].shape, np.int32)
        shape = self.constant(wanted)
        options = schema.ReshapeOptionsT()
        options.newShape = wanted
        self.operator(BuiltinOperator.RESHAPE, [value, shape], output, (schema.BuiltinOptions.ReshapeOptions, options))

    def serialise(self, window: int, logits: int) -> tuple[bytes, Table]:
        """Return the file, and where everything that follows from the parameters lies in it, in order."""
        self._graph.inputs, self._graph.outputs = [window], [logits]
        model = schema.ModelT()
        model.version, model.description = _SCHEMA_VERSION, b"bedside"
        model.operatorCodes = [_operator_code(code) for code in self._codes]
        model.subgraphs, model.buffers = [self._graph], self._buffers
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        data = bytes(builder.Output())
        return data, self._patches(data)

    def _buffer(self, data: bytes) -> int:
        buffer = _AlignedBuffer()
        buffer.data = data
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _patches(self, data: bytes) -> Table:
        model = schema.Model.GetRootAs(data, 0)
        found = []
        for number, content in self._filled.items():
            buffer = model.Buffers(number)
            found.append(Patch(content.tensor, _vector(buffer), buffer.DataLength(), content.axes))
        graph = model.Subgraphs(0)
        for number, name in self._scales.items():
            quantization = graph.Tensors(number).Quantization()
            offset = _vector(quantization, _SCALE_FIELD)
            found.append(Patch(name, offset, quantization.ScaleLength() * _FLOAT32_BYTES))
        return tuple(sorted(found, key=lambda patch: patch.offset))


_DATA_FIELD: Final = 4
_SCALE_FIELD: Final = 8
"""Places of `Buffer.data` and `QuantizationParameters.scale` in their tables, as the schema numbers them."""


def _vector(owner: schema.Buffer | schema.QuantizationParameters, field: int = _DATA_FIELD) -> int:
    """Offset in the file of the first element of a vector."""
    table = owner._tab  # noqa: SLF001 - the bindings hand out copies of values, never their places
    return int(table.Vector(table.Offset(field)))


def _operator_code(code: int) -> schema.OperatorCodeT:
    written = schema.OperatorCodeT()
    written.builtinCode = code
    written.deprecatedBuiltinCode = min(code, _ONE_BYTE_CODES)
    written.version = _VERSIONS[code]
    return written


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]  # the bindings are not typed
    """A buffer whose data begins at a multiple of sixteen bytes, as the schema asks; the bindings forget it."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 - the name in the bindings
        """Write the data, then the table that points to it."""
        vector = None
        if self.data is not None:
            builder.StartVector(1, len(self.data), _ALIGNMENT_BYTES)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))
