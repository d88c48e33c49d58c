"""The layer list of a model, and the shapes that follow from it.

Everything is channels-last: a batch of windows is (N, L, C). Parameters are numbered by their layer among
those that have any: layer `i` owns `w{i}` and `b{i}`; a convolution's weight is (taps, channels, filters), a
dense one's is (inputs, units), so that the last axis is always the output channel and carries the scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from bedside.core.bundle.bounds import MAX_LAYERS
from bedside.core.errors import MalformedError

_MAX_WIDTH: Final = 4_096
_MAX_TAPS: Final = 129


class Conv1d(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="conv1d", tag_field="kind"):
    """Convolution over time with zero padding that keeps the length; `taps` is odd."""

    filters: int
    taps: int


class Dense(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="dense", tag_field="kind"):
    """Fully connected layer on a flat input."""

    units: int


class Relu(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="relu", tag_field="kind"):
    """Rectifier."""


class MaxPool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="maxpool", tag_field="kind"):
    """Maximum over pairs of neighbouring samples; the length must be even."""


class GlobalAveragePool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="gap", tag_field="kind"):
    """Mean over time: (N, L, C) to (N, C)."""


class Flatten(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="flatten", tag_field="kind"):
    """(N, L, C) to (N, L x C)."""


Layer = Conv1d | Dense | Relu | MaxPool | GlobalAveragePool | Flatten


class Step(NamedTuple):
    """One layer in its place.

    Attributes:
        layer: the layer itself.
        before: shape of one example at its input, without the batch axis.
        after: shape of one example at its output.
        order: its number among the layers with parameters, or -1.
        signed: whether its input may be negative (false right after a rectifier and what keeps its sign).
    """

    layer: Layer
    before: tuple[int, ...]
    after: tuple[int, ...]
    order: int
    signed: bool


def walk(layers: Sequence[Layer], input_shape: tuple[int, int], classes: int) -> tuple[Step, ...]:
    """Follow one example of shape (L, C) through the list to its logits.

    Raises:
        MalformedError: `bad-layers`, when a layer does not fit what comes before it or the last one is not
            `classes` logits.
    """
    if not 0 < len(layers) <= MAX_LAYERS:
        raise _unfit(f"a model has 1 to {MAX_LAYERS} layers, not {len(layers)}")
    steps = tuple(_steps(layers, input_shape))
    if steps[-1].after != (classes,) or not isinstance(steps[-1].layer, Dense):
        raise _unfit(f"the last layer must be dense with {classes} units, one per label")
    return steps


def _steps(layers: Sequence[Layer], input_shape: tuple[int, int]) -> Iterator[Step]:
    shape: tuple[int, ...] = input_shape
    order, signed = 0, True
    for number, layer in enumerate(layers):
        after = _output_shape(layer, shape, number)
        owns = isinstance(layer, Conv1d | Dense)
        yield Step(layer, shape, after, order if owns else -1, signed)
        order += owns
        signed = True if owns else (signed and not isinstance(layer, Relu))
        shape = after


def _output_shape(layer: Layer, shape: tuple[int, ...], number: int) -> tuple[int, ...]:
    where = f"layer {number} ({layer.__struct_config__.tag})"
    if isinstance(layer, Relu):
        return shape
    if isinstance(layer, Dense):
        if len(shape) != 1 or not 0 < layer.units <= _MAX_WIDTH:
            raise _unfit(f"{where} needs a flat input and 1 to {_MAX_WIDTH} units")
        return (layer.units,)
    if len(shape) != 2:
        raise _unfit(f"{where} needs a time axis, which an earlier layer has removed")
    length, channels = shape
    if isinstance(layer, Conv1d):
        if not (0 < layer.filters <= _MAX_WIDTH and 0 < layer.taps <= min(_MAX_TAPS, length) and layer.taps % 2):
            raise _unfit(f"{where} needs 1 to {_MAX_WIDTH} filters and an odd number of taps within the window")
        return (length, layer.filters)
    if isinstance(layer, MaxPool):
        if length % 2:
            raise _unfit(f"{where} needs an even length, not {length}")
        return (length // 2, channels)
    return (channels,) if isinstance(layer, GlobalAveragePool) else (length * channels,)


def _unfit(sentence: str) -> MalformedError:
    return MalformedError("bad-layers", sentence, remedy="correct the layer list of the recipe")
