"""The layer list of a model, and the shapes that follow from it.

Everything is channels-last: a batch of windows is (N, L, C). The list is a chain, but for `add`, which takes in what an
earlier layer gave. Layers with weights are numbered among themselves (`Step.order`), and so are norms (`Step.norm`);
`bedside.core.bundle.parameters` says which tensors they own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from bedside.core.bundle.bounds import MAX_ACTIVATION_VALUES, MAX_LAYERS
from bedside.core.errors import MalformedError

_MAX_WIDTH: Final = 4_096
_MAX_TAPS: Final = 129
_MAX_STRIDE: Final = 16

Scope = Literal["shared", "local"]
"""Whether a layer's tensors are in the updates of a federation, or never leave their device (FedBN, personal heads)."""

Form = Literal["dense", "conv", "depthwise"]
"""How a weight is applied: to a flat example, to windows over time, or to each channel over time by itself."""


class Conv1d(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="conv1d", tag_field="kind"
):
    """Convolution over time, with zeros around the window; `taps` is odd, and `stride` divides the length."""

    filters: int
    taps: int
    stride: int = 1
    scope: Scope = "shared"


class DepthwiseConv1d(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="depthwise", tag_field="kind"
):
    """Convolution of each channel by itself; a `conv1d` of one tap behind it makes both depthwise-separable."""

    taps: int
    stride: int = 1
    scope: Scope = "shared"


class Dense(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="dense", tag_field="kind"):
    """Fully connected layer on a flat input."""

    units: int
    scope: Scope = "shared"


class Relu(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="relu", tag_field="kind"):
    """Rectifier."""


class MaxPool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="maxpool", tag_field="kind"):
    """Maximum over pairs of neighbouring samples; the length must be even."""


class GlobalAveragePool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="gap", tag_field="kind"):
    """Mean over time: (N, L, C) to (N, C)."""


class Flatten(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="flatten", tag_field="kind"):
    """(N, L, C) to (N, L x C)."""


class Add(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="add", tag_field="kind"):
    """Adds what the layer that stands `back` places before this one gave.

    Where that has more channels or samples, it comes through a convolution of one tap with the stride that fits, which
    owns weights (the projection shortcut). Source: He et al. 2016, "Deep Residual Learning", section 3.3, option B.
    """

    back: int
    scope: Scope = "shared"


class GroupNorm(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="groupnorm", tag_field="kind"
):
    """Each example's groups of channels, over time, to mean 0 and variance 1; then a scale and shift per channel.

    Source: Wu and He 2018, "Group Normalization".
    """

    groups: int
    scope: Scope = "shared"


class BatchNorm(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="batchnorm", tag_field="kind"
):
    """Each channel to mean 0 and variance 1 over batch and time, right behind a layer with weights.

    Local by default, statistics and scale and shift alike. Source: Ioffe and Szegedy 2015; Li et al. 2021, "FedBN".
    """

    scope: Scope = "local"


class Standardise(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="standardise", tag_field="kind"
):
    """The window's channels to mean 0 and variance 1, as the first layer. Its tensors are the first two raw moments.

    A device puts in those of its own windows before it trains. They stay there (`local`), or travel as any shared
    tensor (`shared`): a mean of raw moments, weighted by examples, is the moment of all, so that a federation
    normalises by its own statistics and nobody has to pool anything.
    """

    scope: Scope = "local"


Layer = (
    Conv1d
    | DepthwiseConv1d
    | Dense
    | Relu
    | MaxPool
    | GlobalAveragePool
    | Flatten
    | Add
    | GroupNorm
    | BatchNorm
    | Standardise
)
Norm = GroupNorm | BatchNorm | Standardise


class Kernel(NamedTuple):
    """What a layer with weights multiplies.

    Attributes:
        form: how.
        taps: samples of a filter; 1 for a dense layer.
        stride: samples from one output to the next.
        inputs: channels (or values) that come in.
        outputs: that go out.
    """

    form: Form
    taps: int
    stride: int
    inputs: int
    outputs: int


class Step(NamedTuple):
    """One layer in its place.

    Attributes:
        layer: the layer itself.
        number: its place in the list, from 0.
        before: shape of one example at its input, without the batch axis.
        after: shape of one example at its output.
        order: its number among the layers with weights, or -1. An `add` has one when it projects.
        norm: its number among the norms, or -1.
        kernel: of a layer with weights.
        signed: whether what its weights are applied to may be negative (false behind a rectifier and what keeps signs).
        skip: of an `add`: the place of the layer whose output it adds, or -1.
    """

    layer: Layer
    number: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    order: int = -1
    norm: int = -1
    kernel: Kernel | None = None
    signed: bool = True
    skip: int = -1


def walk(layers: Sequence[Layer], input_shape: tuple[int, int], outputs: int) -> tuple[Step, ...]:
    """Follow one example of shape (L, C) through the list to what it says.

    Raises:
        MalformedError: `bad-layers`, when a layer does not fit what comes before it or the last one does not give
            `outputs` values.
    """
    if not 0 < len(layers) <= MAX_LAYERS:
        raise _unfit(f"a model has 1 to {MAX_LAYERS} layers, not {len(layers)}")
    steps = tuple(_steps(layers, input_shape))
    largest = max(steps, key=lambda step: max(math.prod(step.before), math.prod(step.after)))
    values = max(math.prod(largest.before), math.prod(largest.after))
    if values > MAX_ACTIVATION_VALUES:
        where = _where(largest.layer, largest.number)
        raise _unfit(f"at {where} one window is {values} values, and {MAX_ACTIVATION_VALUES} are allowed")
    if steps[-1].after != (outputs,) or not isinstance(steps[-1].layer, Dense):
        raise _unfit(f"the last layer must be dense with {outputs} units, one per label")
    return steps


def _steps(layers: Sequence[Layer], input_shape: tuple[int, int]) -> Iterator[Step]:
    shape: tuple[int, ...] = input_shape
    done: list[Step] = []
    positive: list[bool] = []
    order = norm = 0
    for number, layer in enumerate(layers):
        skip = number - layer.back if isinstance(layer, Add) else -1
        _check_place(layer, number, done)
        after = _output_shape(layer, shape, number)
        kernel = _kernel(layer, shape, after)
        if isinstance(layer, Add):
            kernel = _projection(done[skip].after, after, number)
        signed = not positive[skip] if skip >= 0 else not (positive and positive[-1])
        owns = isinstance(layer, Norm)
        step = Step(
            layer,
            number,
            shape,
            after,
            order if kernel else -1,
            norm if owns else -1,
            kernel,
            signed,
            skip,
        )
        yield step
        done.append(step)
        positive.append(_never_negative(step, positive))
        order += kernel is not None
        norm += owns
        shape = after


def _never_negative(step: Step, positive: Sequence[bool]) -> bool:
    if isinstance(step.layer, Relu):
        return True
    if isinstance(step.layer, Add):
        return step.kernel is None and positive[-1] and positive[step.skip]
    keeps = isinstance(step.layer, MaxPool | GlobalAveragePool | Flatten)
    return keeps and bool(positive) and positive[-1]


def _check_place(layer: Layer, number: int, done: Sequence[Step]) -> None:
    where = _where(layer, number)
    if isinstance(layer, Standardise) and number > 0:
        raise _unfit(f"{where} can only be the first layer")
    if isinstance(layer, BatchNorm) and (not done or done[-1].kernel is None or isinstance(done[-1].layer, Add)):
        raise _unfit(f"{where} must stand right behind a convolution or a dense layer, into which it is folded")
    if isinstance(layer, Add) and not 2 <= layer.back <= number:
        raise _unfit(f"{where} must reach back to an earlier layer: back is 2 to {number} here")
    if isinstance(layer, Add) and isinstance(done[number - layer.back + 1].layer, BatchNorm):
        raise _unfit(f"{where} cannot take what a batch norm is folded into: reach back to the batch norm itself")


def _output_shape(layer: Layer, shape: tuple[int, ...], number: int) -> tuple[int, ...]:
    where = _where(layer, number)
    if isinstance(layer, Relu | Add | BatchNorm):
        return shape
    if isinstance(layer, Dense):
        if len(shape) != 1 or not 0 < layer.units <= _MAX_WIDTH:
            raise _unfit(f"{where} needs a flat input and 1 to {_MAX_WIDTH} units")
        return (layer.units,)
    if len(shape) != 2:
        raise _unfit(f"{where} needs a time axis, which an earlier layer has removed")
    length, channels = shape
    if isinstance(layer, Conv1d | DepthwiseConv1d):
        return _convolved(layer, length, channels, where)
    if isinstance(layer, MaxPool):
        if length % 2:
            raise _unfit(f"{where} needs an even length, not {length}")
        return (length // 2, channels)
    if isinstance(layer, GroupNorm) and (layer.groups < 1 or channels % layer.groups):
        raise _unfit(f"{where} needs a number of groups that divides its {channels} channels")
    if isinstance(layer, GroupNorm | Standardise):
        return shape
    return (channels,) if isinstance(layer, GlobalAveragePool) else (length * channels,)


def _convolved(layer: Conv1d | DepthwiseConv1d, length: int, channels: int, where: str) -> tuple[int, ...]:
    filters = layer.filters if isinstance(layer, Conv1d) else channels
    if not (0 < filters <= _MAX_WIDTH and 0 < layer.taps <= min(_MAX_TAPS, length) and layer.taps % 2):
        raise _unfit(f"{where} needs 1 to {_MAX_WIDTH} filters and an odd number of taps within the window")
    if not 1 <= layer.stride <= _MAX_STRIDE or length % layer.stride:
        raise _unfit(f"{where} needs a stride of 1 to {_MAX_STRIDE} that divides its length {length}")
    return (length // layer.stride, filters)


def _kernel(layer: Layer, before: tuple[int, ...], after: tuple[int, ...]) -> Kernel | None:
    match layer:
        case Dense():
            return Kernel("dense", 1, 1, before[0], after[0])
        case Conv1d():
            return Kernel("conv", layer.taps, layer.stride, before[1], after[1])
        case DepthwiseConv1d():
            return Kernel("depthwise", layer.taps, layer.stride, before[1], after[1])
        case _:
            return None


def _projection(skipped: tuple[int, ...], shape: tuple[int, ...], number: int) -> Kernel | None:
    """What brings an earlier output into the form of a later one; None when it has it."""
    if skipped == shape:
        return None
    if len(skipped) != 2 or len(shape) != 2 or skipped[0] % shape[0] or skipped[0] // shape[0] > _MAX_STRIDE:
        raise _unfit(f"layer {number} (add) cannot bring {skipped} into the form {shape}")
    return Kernel("conv", 1, skipped[0] // shape[0], skipped[1], shape[1])


def _where(layer: Layer, number: int) -> str:
    return f"layer {number} ({layer.__struct_config__.tag})"


def _unfit(sentence: str) -> MalformedError:
    return MalformedError("bad-layers", sentence, remedy="correct the layer list of the recipe")
