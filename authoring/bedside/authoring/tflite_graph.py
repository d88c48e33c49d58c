"""`infer.tflite`: the int8 net once more, for LiteRT, and the table of where its parameters lie.

Written from the layer list with the bindings of the format's own schema; no converter takes part. Windows (1, L, C)
become images of height one, so that every layer with weights is a CONV_2D or DEPTHWISE_CONV_2D and has a scale per
output channel.

A layer is computed in integers when the range of its output is known, which is the input range of the next layer with
weights; maxima, rectifiers and reshaping between the two commute with rounding. The last layer is computed in float
from the same integers, as onnxruntime does it, and so is one whose output is averaged, normalised by group or added to
another before it is rounded, or is taken by an `add` further on.

Source: the TensorFlow Lite schema, version 3, and its 8-bit quantisation specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from bedside.authoring.net import Net
from bedside.authoring.tflite_file import BuiltinOperator, Content, Table, TensorType, TfliteFile
from bedside.core.bundle.layers import (
    Add,
    BatchNorm,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    Flatten,
    Form,
    GlobalAveragePool,
    GroupNorm,
    Kernel,
    MaxPool,
    Relu,
    Standardise,
    Step,
)
from bedside.core.bundle.parameters import NORM_EPSILON
from bedside.core.bundle.quantise import UNSIGNED_ZERO_POINT
from bedside.core.bundle.tensors import Array

_AXES: Final[Mapping[Form, tuple[int, ...]]] = {"conv": (0, 2, 1), "depthwise": (1, 2, 0), "dense": (1, 0)}
"""From the order of ONNX to (filters, height 1, taps, channels); a depthwise one is (1, height 1, taps, channels)."""

_DEPTHWISE_SCALE_AXIS: Final = 3


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
    given: list[_Value] = []
    for step in net.steps:
        value = made.layer(value, step, given, _rounded_next(net.steps, step.number))
        given.append(value)
    logits = made.file.tensor("logits", (1, net.outputs), TensorType.FLOAT32)
    made.file.reshape(value.number, logits)
    return made.file.serialise(window, logits)


def _rounded_next(steps: Sequence[Step], number: int) -> Step | None:
    """The layer whose input range is also that of the output of layer `number`; None when no layer tells it."""
    taken = {step.skip for step in steps}
    for step in steps[number + 1 :]:
        if step.number - 1 in taken or isinstance(step.layer, Add | GlobalAveragePool | GroupNorm):
            return None
        if step.kernel is not None:
            return step
    return None


class _Operators:
    """Layers as operators of one file."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self.file = TfliteFile(tensors)

    def layer(self, value: _Value, step: Step, given: Sequence[_Value], rounded: Step | None) -> _Value:
        """Append one layer; `given` is what those before it gave."""
        match step.layer:
            case Conv1d() | DepthwiseConv1d() | Dense():
                return self._weighted(value, step, step.before, rounded)
            case Relu():  # zero is the least of a range without sign, so integers are rectified already
                return value if value.scale else self._same_form(value, _image(step.after), BuiltinOperator.RELU)
            case MaxPool():
                pooled = self._like(value, _image(step.after))
                self.file.pool(BuiltinOperator.MAX_POOL_2D, value.number, pooled.number, 2)
                return pooled
            case GlobalAveragePool():
                pooled = self._like(value, (1, 1, 1, step.after[0]))
                self.file.pool(BuiltinOperator.AVERAGE_POOL_2D, value.number, pooled.number, step.before[0])
                return pooled
            case Flatten():
                return self.reshape(value, _image(step.after))
            case Add():
                return self._added(value, step, given[step.skip])
            case GroupNorm(groups=groups):
                return self._group_normalised(value, step, groups)
            case Standardise():
                return self._affine(value, _image(step.after), f"mul{step.norm}", f"add{step.norm}")
            case BatchNorm():  # in the scales and biases of the layer before
                return value

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
        return self._whole(shape, value.scale, signed=value.signed) if value.scale else self._float(shape)

    def _float(self, shape: tuple[int, ...]) -> _Value:
        return _Value(self.file.tensor("", shape, TensorType.FLOAT32))

    def _whole(self, shape: tuple[int, ...], scale: str, *, signed: bool) -> _Value:
        zero = 0 if signed else UNSIGNED_ZERO_POINT
        return _Value(self.file.tensor("", shape, TensorType.INT8, scale=scale, zero_point=zero), scale, signed)

    def _added(self, value: _Value, step: Step, skipped: _Value) -> _Value:
        """The sum of two float values: what is added, or taken by an add, is not rounded before."""
        if step.kernel is not None:
            length, _ = step.after
            skipped = self._weighted(skipped, step, (length * step.kernel.stride, step.kernel.inputs), None)
        return self._arithmetic(BuiltinOperator.ADD, value, skipped.number, _image(step.after))

    def _group_normalised(self, value: _Value, step: Step, groups: int) -> _Value:
        """Means over time, then over the few values of a group: along the last axes alone, operators are quick."""
        shape, each = _image(step.after), (1, 1, 1, step.after[-1])
        mean = self._group_mean(value, each, groups)
        centred = self._arithmetic(BuiltinOperator.SUB, value, mean.number, shape)
        square = self._arithmetic(BuiltinOperator.MUL, centred, centred.number, shape)
        epsilon = self.file.constant(np.array([NORM_EPSILON], np.float32))
        variance = self._group_mean(square, each, groups)
        variance = self._arithmetic(BuiltinOperator.ADD, variance, epsilon, each)
        factor = self._same_form(variance, each, BuiltinOperator.RSQRT)
        normal = self._arithmetic(BuiltinOperator.MUL, centred, factor.number, shape)
        return self._affine(normal, shape, f"gamma{step.norm}", f"beta{step.norm}")

    def _group_mean(self, value: _Value, each: tuple[int, ...], groups: int) -> _Value:
        """The mean of each channel's group, once for each channel."""
        channels = each[-1]
        means = self._averaged(value, each, (1, 2))
        if groups == channels:
            return means
        grouped = self.reshape(means, (1, 1, groups, channels // groups))
        shared = self._averaged(grouped, (1, 1, groups, 1), (3,))
        ones = self.file.constant(np.ones((1, 1, 1, channels // groups), np.float32))
        spread = self._arithmetic(BuiltinOperator.MUL, shared, ones, (1, 1, groups, channels // groups))
        return self.reshape(spread, each)

    def _averaged(self, value: _Value, shape: tuple[int, ...], axes: tuple[int, ...]) -> _Value:
        result = self._float(shape)
        self.file.mean(value.number, result.number, axes)
        return result

    def _affine(self, value: _Value, shape: tuple[int, ...], factor: str, shift: str) -> _Value:
        """Times a value per channel, plus one, both from the parameters."""
        for code, name in ((BuiltinOperator.MUL, factor), (BuiltinOperator.ADD, shift)):
            constant = self.file.tensor(name, shape[-1:], TensorType.FLOAT32, content=Content(name))
            value = self._arithmetic(code, value, constant, shape)
        return value

    def _arithmetic(self, code: int, value: _Value, other: int, shape: tuple[int, ...]) -> _Value:
        result = self._float(shape)
        self.file.arithmetic(code, [value.number, other], result.number)
        return result

    def _weighted(self, value: _Value, step: Step, before: tuple[int, ...], rounded: Step | None) -> _Value:
        """A layer with weights on `before`: integers at the scale of the layer `rounded`; float without one."""
        kernel = _kernel(step)
        value = self._rounded(value, step, before)
        if rounded is None:
            real = self._float(_image(before))
            self.file.operator(BuiltinOperator.DEQUANTIZE, [value.number], real.number)
            value = real
        value, padded = self._padded(value, kernel, before)
        result = self._float(_image(step.after))
        if rounded is not None:
            result = self._whole(_image(step.after), f"w{rounded.order}.input_scale", signed=rounded.signed)
        self.file.convolution(
            [value.number, *self._constants(step, kernel, whole=rounded is not None)],
            result.number,
            depthwise=kernel.form == "depthwise",
            stride=kernel.stride,
            padded=padded,
        )
        return result

    def _rounded(self, value: _Value, step: Step, before: tuple[int, ...]) -> _Value:
        """The input of a layer with weights, as integers at that layer's scale."""
        if value.scale:  # the layer before it was given this scale already
            return value
        whole = self._whole(_image(before), f"w{step.order}.input_scale", signed=step.signed)
        self.file.operator(BuiltinOperator.QUANTIZE, [value.number], whole.number)
        return whole

    def _padded(self, value: _Value, kernel: Kernel, before: tuple[int, ...]) -> tuple[_Value, bool]:
        """Zeros round the window: SAME would not put the middle of a filter with a stride on the first sample."""
        if kernel.stride == 1 or kernel.taps == 1:
            return value, False
        margin = kernel.taps // 2
        behind = max(0, margin + 1 - kernel.stride)
        length, channels = before
        padded = self._like(value, (1, 1, margin + length + behind, channels))
        self.file.pad(value.number, padded.number, margin, behind)
        return padded, True

    def _constants(self, step: Step, kernel: Kernel, *, whole: bool) -> tuple[int, int]:
        """Weight and bias of a layer, as integers or as what these stand for."""
        weight, bias, depthwise = f"w{step.order}", f"b{step.order}", kernel.form == "depthwise"
        shape = (1 if depthwise else kernel.outputs, 1, kernel.taps, kernel.inputs)
        form, units = ("q" if whole else "real"), (kernel.outputs,)
        return (
            self.file.tensor(
                weight,
                shape,
                TensorType.INT8 if whole else TensorType.FLOAT32,
                content=Content(f"{weight}.{form}", _AXES[kernel.form]),
                scale=f"{weight}.scale" if whole else "",
                scale_axis=_DEPTHWISE_SCALE_AXIS if depthwise else 0,
            ),
            self.file.tensor(
                bias,
                units,
                TensorType.INT32 if whole else TensorType.FLOAT32,
                content=Content(f"{bias}.{form}"),
                scale=f"{bias}.scale" if whole else "",
            ),
        )


def _kernel(step: Step) -> Kernel:
    assert step.kernel is not None  # noqa: S101 - narrows the type; the caller chose by it
    return step.kernel


def _image(example: tuple[int, ...]) -> tuple[int, ...]:
    """(L, C) or (C,) as an image of height one in a batch of one."""
    return (1,) * (4 - len(example)) + example
