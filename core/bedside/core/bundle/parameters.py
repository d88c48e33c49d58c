"""Which tensors a layer list owns, by name, and how each becomes int8.

Layer `i` with weights owns `w{i}` and `b{i}`: a convolution's weight is (taps, channels, filters), a depthwise one's
(taps, channels), a dense one's (inputs, units), so that the last axis is always the output channel and carries the
scales. Norm `k` owns `gamma{k}` and `beta{k}`; a batch norm also `mean{k}` and `variance{k}`; a `standardise` owns
`mean{k}` and `square{k}`, the mean of the squares. `amax` has the range of what each layer's weights are applied to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from bedside.core.bundle.layers import BatchNorm, Form, GroupNorm, Standardise, Step

AMAX: Final = "amax"
"""Name of the tensor of activation ranges."""

NORM_EPSILON: Final = 1e-5
"""Added to every variance, as torch does."""


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named tensor.

    Attributes:
        name: of the tensor.
        shape: its axes.
        shared: whether it is in the updates of a federation; what is not, is local and never leaves the device.
        trained: by its gradient; otherwise it is observed (ranges, statistics).
        dtype: of its values; what becomes int8 does so by `QuantisedLayer`.
    """

    name: str
    shape: tuple[int, ...]
    shared: bool = True
    trained: bool = True
    dtype: Literal["float32"] = "float32"


class QuantisedLayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the int8 form of one layer comes from.

    Attributes:
        weight: parameter name; one symmetric scale per index of its last axis.
        bias: parameter name; int32 at scale (input scale x weight scale).
        amax_index: place of the input's range in the `amax` parameter.
        signed: input range is -amax..amax (else 0..amax).
        form: how the weight is applied.
        folded: number of the batch norm that is folded into it, or -1.
    """

    weight: str
    bias: str
    amax_index: int
    signed: bool
    form: Form
    folded: int = -1


def layer_tensors(steps: Sequence[Step]) -> tuple[TensorSpec, ...]:
    """Every parameter of the net in the order of its layers, `amax` last."""
    specs: list[TensorSpec] = []
    weighted = 0
    for step in steps:
        specs += tensors_of(step)
        weighted += step.kernel is not None
    return (*specs, TensorSpec(AMAX, (weighted,), trained=False))


def tensors_of(step: Step) -> list[TensorSpec]:
    """The tensors of one layer."""
    shared = getattr(step.layer, "scope", "shared") == "shared"
    specs: list[TensorSpec] = []
    if step.kernel is not None:
        taps, inputs, outputs = step.kernel.taps, step.kernel.inputs, step.kernel.outputs
        shapes = {"dense": (inputs, outputs), "conv": (taps, inputs, outputs), "depthwise": (taps, outputs)}
        specs.append(TensorSpec(f"w{step.order}", shapes[step.kernel.form], shared))
        specs.append(TensorSpec(f"b{step.order}", (outputs,), shared))
    channels, norm = step.after[-1:], step.norm
    if isinstance(step.layer, GroupNorm | BatchNorm):
        specs += [TensorSpec(f"{name}{norm}", channels, shared) for name in ("gamma", "beta")]
    if isinstance(step.layer, BatchNorm):
        specs += [TensorSpec(f"{name}{norm}", channels, shared, trained=False) for name in ("mean", "variance")]
    if isinstance(step.layer, Standardise):
        specs += [TensorSpec(f"{name}{norm}", channels, shared, trained=False) for name in ("mean", "square")]
    return specs


def quantised_layers(steps: Sequence[Step]) -> tuple[QuantisedLayer, ...]:
    """The layers with weights, in the order of the net."""
    quantised = []
    for step, later in zip(steps, (*steps[1:], None), strict=True):
        if step.kernel is None:
            continue
        folded = later.norm if later is not None and isinstance(later.layer, BatchNorm) else -1
        form = step.kernel.form
        quantised.append(QuantisedLayer(f"w{step.order}", f"b{step.order}", step.order, step.signed, form, folded))
    return tuple(quantised)


def kept_norms(steps: Sequence[Step]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the norms that an inference graph computes in float: group norms, and standardising layers."""
    groups = tuple(step.norm for step in steps if isinstance(step.layer, GroupNorm))
    return groups, tuple(step.norm for step in steps if isinstance(step.layer, Standardise))
