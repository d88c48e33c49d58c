"""From float parameters to the int8 tensors of `infer.onnx`, with numpy alone.

Weights are symmetric per output channel, activations per tensor: signed inputs use zero point 0 and scale amax/127,
inputs that cannot be negative use zero point -128 and scale amax/255. A bias is int32 at (input scale x weight scale).

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 2; the ONNX operators QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.layers import Form
from bedside.core.bundle.manifest import Quantisation
from bedside.core.bundle.parameters import NORM_EPSILON, QuantisedLayer
from bedside.core.bundle.tensors import Array

MIN_SCALE: Final = 1e-8
"""A channel of zeros still has a scale that can be divided by."""

MAX_SCALE: Final = 1e14
"""Of weights and inputs: even the largest sum of their products is a float32. Only a net that diverged has it."""

UNSIGNED_ZERO_POINT: Final = -128
"""Zero point of an int8 activation that is never negative."""

_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_BIAS_MAX: Final = 2**30
"""A bias within this leaves room for the sum of products beside it."""


def quantise_parameters(
    parameters: Mapping[str, npt.NDArray[np.float32]], quantisation: Quantisation
) -> dict[str, Array]:
    """Return the initialisers of `infer.onnx` that follow from `parameters`.

    For layer `i` with weight `w` and bias `b`: `w.q` int8 (filters, channels, taps), depthwise (channels, 1, taps) or
    dense (inputs, units); `w.scale` float32 (units,), `b.q` int32 (units,), `b.scale` float32 (units,),
    `w.input_scale` float32 (). A batch norm behind a layer is folded into scales and biases, so that the integers stay
    those of training. A group norm's `gamma` and `beta` are as they are; standardising layer `k` has `mul{k}` and
    `add{k}`, float32 (channels,).
    """
    amax = parameters[quantisation.amax]
    tensors: dict[str, Array] = {}
    for layer in quantisation.layers:
        input_scale = activation_scale(float(amax[layer.amax_index]), signed=layer.signed)
        tensors |= _layer_tensors(layer, parameters, input_scale, quantisation.weight_qmax)
    for norm in quantisation.groups:
        tensors |= {name: parameters[name] for name in (f"gamma{norm}", f"beta{norm}")}
    for norm in quantisation.standardised:
        tensors |= _affine(norm, parameters[f"mean{norm}"], parameters[f"square{norm}"])
    return tensors


def real_tensors(quantised: Mapping[str, Array], quantisation: Quantisation) -> dict[str, Array]:
    """Return what the integers of `quantise_parameters` stand for, float32: `w.real` shaped as `w.q`, and `b.real`.

    A runtime that computes a layer in float multiplies by these and so stays with the numbers of the integer form.
    """
    tensors: dict[str, Array] = {}
    for layer in quantisation.layers:
        values, scale = quantised[f"{layer.weight}.q"], quantised[f"{layer.weight}.scale"]
        spread = scale if layer.form == "dense" else scale[:, np.newaxis, np.newaxis]
        bias = quantised[f"{layer.bias}.q"] * quantised[f"{layer.bias}.scale"].astype(np.float64)
        tensors[f"{layer.weight}.real"] = (values * spread).astype(np.float32)
        tensors[f"{layer.bias}.real"] = bias.astype(np.float32)
    return tensors


def activation_scale(amax: float, *, signed: bool) -> float:
    """Scale of an int8 activation whose largest magnitude is `amax`."""
    return min(max(amax / (127 if signed else 255), MIN_SCALE), MAX_SCALE)


def weight_scale(weight: npt.NDArray[np.float32], qmax: int) -> npt.NDArray[np.float32]:
    """Symmetric scale per index of a weight's last axis."""
    largest = np.abs(weight.reshape(-1, weight.shape[-1])).max(axis=0)
    scale: npt.NDArray[np.float32] = np.clip(largest / np.float32(qmax), MIN_SCALE, MAX_SCALE).astype(np.float32)
    return scale


def standard_affine(
    mean: npt.NDArray[np.float32], square: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What a standardising layer multiplies by and adds, from the first two raw moments (channels,)."""
    centre = mean.astype(np.float64)
    variance = np.maximum(square - centre * centre, 0)
    factor = 1 / np.sqrt(variance + NORM_EPSILON)
    shift = np.clip(-centre * factor, -_FLOAT32_MAX, _FLOAT32_MAX)
    return factor.astype(np.float32), shift.astype(np.float32)


def _affine(norm: int, mean: npt.NDArray[np.float32], square: npt.NDArray[np.float32]) -> dict[str, Array]:
    factor, shift = standard_affine(mean, square)
    return {f"mul{norm}": factor, f"add{norm}": shift}


def _layer_tensors(
    layer: QuantisedLayer,
    parameters: Mapping[str, npt.NDArray[np.float32]],
    input_scale: float,
    qmax: int,
) -> dict[str, Array]:
    weight, bias = parameters[layer.weight], parameters[layer.bias].astype(np.float64)
    fine = weight_scale(weight, qmax)
    values = np.clip(np.round(weight / fine), -qmax, qmax)
    exact = fine.astype(np.float64)
    if layer.folded >= 0:
        values, exact, bias = _folded(layer.folded, parameters, values, exact, bias)
    # A bias that does not fit beside such fine weights is what counts: coarser ones do as well as none.
    least = np.maximum(np.abs(bias) / (_BIAS_MAX * input_scale), MIN_SCALE)
    scale = np.minimum(np.maximum(exact, least), MAX_SCALE).astype(np.float32)
    values = np.round(values * np.minimum(exact / scale, 1)).astype(np.int8)
    bias_scale = (scale * np.float32(input_scale)).astype(np.float32)
    bias_values = np.clip(np.round(bias / bias_scale), -_BIAS_MAX, _BIAS_MAX)
    return {
        f"{layer.weight}.q": _onnx_order(values, layer.form),
        f"{layer.weight}.scale": scale,
        f"{layer.weight}.input_scale": np.array(input_scale, np.float32),
        f"{layer.bias}.q": bias_values.astype(np.int32),
        f"{layer.bias}.scale": bias_scale,
    }


def _folded(
    norm: int,
    parameters: Mapping[str, npt.NDArray[np.float32]],
    values: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A batch norm is a factor per channel: into the scale, its sign into the integers, the rest into the bias."""
    gamma, beta, mean, variance = (
        parameters[f"{name}{norm}"].astype(np.float64) for name in ("gamma", "beta", "mean", "variance")
    )
    factor = gamma / np.sqrt(np.maximum(variance, 0) + NORM_EPSILON)
    return (values * np.sign(factor)).astype(np.float32), scale * np.abs(factor), (bias - mean) * factor + beta


def _onnx_order(values: npt.NDArray[np.int8], form: Form) -> npt.NDArray[np.int8]:
    """From (taps, channels, filters) or (taps, channels) to the order of the ONNX operator Conv; dense as it is."""
    if form == "conv":
        return np.ascontiguousarray(values.transpose(2, 1, 0))
    return np.ascontiguousarray(values.T[:, np.newaxis, :]) if form == "depthwise" else values
