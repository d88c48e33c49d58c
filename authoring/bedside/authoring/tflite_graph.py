"""`infer.tflite`: the int8 net once more, for LiteRT, and the table of where its parameters lie.

Written from the layer list with the bindings of the format's own schema; no converter takes part. Windows (1, L, C)
become images of height one, so that every layer with weights is a CONV_2D and has a scale per output channel.

A layer is computed in integers when the range of its output is known, which is the input range of the next layer with
weights; maxima, rectifiers and reshaping between the two commute with rounding. The last layer, and one whose output
is averaged over time before it is rounded, are computed in float from the same integers, as onnxruntime does it.

Source: the TensorFlow Lite schema, version 3, and its 8-bit quantisation specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from bedside.authoring.net import Net
from bedside.authoring.tflite_file import BuiltinOperator, Content, Table, TensorType, TfliteFile
from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu, Step
from bedside.core.bundle.quantise import UNSIGNED_ZERO_POINT
from bedside.core.bundle.tensors import Array

_CONV_AXES: Final = (0, 2, 1)
"""From (filters, channels, taps), as ONNX has it, to (filters, height 1, taps, channels)."""

_DENSE_AXES: Final = (1, 0)


class _Value(NamedTuple):
    """A tensor on its way through the net: (1, 1, L, C).

    Attributes:
        number: of the tensor in the file.
        scale: name of its scale; empty = float32.
        signed: whether zero lies in the middle of its integers.
    """

    number: int
    scale: str = ""
    signed: bool = True


def build_tflite(net: Net, tensors: Mapping[str, Array]) -> tuple[bytes, Table]:
    """Return the bytes of `infer.tflite`, from windows `x` (1, L, C) to `logits` (1, classes), and its patches.

    Args:
        net: the model.
        tensors: of `quantise_parameters` and `real_tensors`.
    """
    made = _Operators(tensors)
    length, channels = net.input_shape
    window = made.file.tensor("x", (1, length, channels), TensorType.FLOAT32)
    value = made.reshape(_Value(window), (1, 1, length, channels))
    for place, step in enumerate(net.steps):
        value = made.layer(value, step, _rounded_next(net.steps[place + 1 :]))
    logits = made.file.tensor("logits", (1, net.outputs), TensorType.FLOAT32)
    made.file.reshape(value.number, logits)
    return made.file.serialise(window, logits)


def _rounded_next(later: Sequence[Step]) -> Step | None:
    """The layer whose input range is also that of an output before `later`; None when no layer tells it."""
    for step in later:
        if step.order >= 0:
            return step
        if isinstance(step.layer, GlobalAveragePool):
            return None
    return None


class _Operators:
    """Layers as operators of one file."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self.file = TfliteFile(tensors)

    def layer(self, value: _Value, step: Step, rounded: Step | None) -> _Value:
        """Append one layer."""
        match step.layer:
            case Conv1d() | Dense():
                value = self._rounded(value, step)
                return self._integers(value, step, rounded) if rounded is not None else self._floats(value, step)
            case Relu():  # zero is the least of a range without sign, so integers are rectified already
                return value if value.scale else self._same_form(value, _shape(step), BuiltinOperator.RELU)
            case MaxPool():
                pooled = self._like(value, _shape(step))
                self.file.pool(BuiltinOperator.MAX_POOL_2D, value.number, pooled.number, 2)
                return pooled
            case GlobalAveragePool():
                pooled = self._like(value, (1, 1, 1, step.after[0]))
                self.file.pool(BuiltinOperator.AVERAGE_POOL_2D, value.number, pooled.number, step.before[0])
                return pooled
            case Flatten():
                return self.reshape(value, _shape(step))
            case _:
                raise NotImplementedError(step.layer)

    def reshape(self, value: _Value, shape: tuple[int, ...]) -> _Value:
        """The same values in another shape."""
        shaped = self._like(value, shape)
        self.file.reshape(value.number, shaped.number)
        return shaped

    def _same_form(self, value: _Value, shape: tuple[int, ...], operator: int) -> _Value:
        result = self._like(value, shape)
        self.file.operator(operator, [value.number], result.number)
        return result

    def _like(self, value: _Value, shape: tuple[int, ...]) -> _Value:
        if not value.scale:
            return _Value(self.file.tensor("", shape, TensorType.FLOAT32))
        return self._whole(shape, value.scale, signed=value.signed)

    def _whole(self, shape: tuple[int, ...], scale: str, *, signed: bool) -> _Value:
        zero = 0 if signed else UNSIGNED_ZERO_POINT
        return _Value(self.file.tensor("", shape, TensorType.INT8, scale=scale, zero_point=zero), scale, signed)

    def _rounded(self, value: _Value, step: Step) -> _Value:
        """The input of a layer with weights, as integers at that layer's scale."""
        if value.scale:  # the layer before it was given this scale already
            return value
        whole = self._whole(_shape_before(step), f"w{step.order}.input_scale", signed=step.signed)
        self.file.operator(BuiltinOperator.QUANTIZE, [value.number], whole.number)
        return whole

    def _integers(self, value: _Value, step: Step, rounded: Step) -> _Value:
        weight, bias, units = f"w{step.order}", f"b{step.order}", step.after[-1]
        inputs = [
            value.number,
            self._weight(step, TensorType.INT8, Content(f"{weight}.q", _axes(step)), f"{weight}.scale"),
            self.file.tensor(bias, (units,), TensorType.INT32, content=Content(f"{bias}.q"), scale=f"{bias}.scale"),
        ]
        result = self._whole(_shape(step), f"w{rounded.order}.input_scale", signed=rounded.signed)
        self.file.convolution(inputs, result.number)
        return result

    def _floats(self, value: _Value, step: Step) -> _Value:
        weight, bias, units = f"w{step.order}", f"b{step.order}", step.after[-1]
        real = self.file.tensor("", _shape_before(step), TensorType.FLOAT32)
        self.file.operator(BuiltinOperator.DEQUANTIZE, [value.number], real)
        inputs = [
            real,
            self._weight(step, TensorType.FLOAT32, Content(f"{weight}.real", _axes(step)), ""),
            self.file.tensor(bias, (units,), TensorType.FLOAT32, content=Content(f"{bias}.real")),
        ]
        result = _Value(self.file.tensor("", _shape(step), TensorType.FLOAT32))
        self.file.convolution(inputs, result.number)
        return result

    def _weight(self, step: Step, kind: int, content: Content, scale: str) -> int:
        taps = step.layer.taps if isinstance(step.layer, Conv1d) else 1
        shape = (step.after[-1], 1, taps, step.before[-1])
        return self.file.tensor(f"w{step.order}", shape, kind, content=content, scale=scale)


def _axes(step: Step) -> tuple[int, ...]:
    return _CONV_AXES if isinstance(step.layer, Conv1d) else _DENSE_AXES


def _shape(step: Step) -> tuple[int, ...]:
    return _image(step.after)


def _shape_before(step: Step) -> tuple[int, ...]:
    return _image(step.before)


def _image(example: tuple[int, ...]) -> tuple[int, ...]:
    """(L, C) or (C,) as an image of height one in a batch of one."""
    return (1,) * (4 - len(example)) + example
