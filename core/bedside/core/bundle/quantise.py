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

from bedside.core.bundle.manifest import Quantisation, QuantisedLayer
from bedside.core.bundle.tensors import Array

MIN_SCALE: Final = 1e-8
"""A channel of zeros still has a scale that can be divided by."""

UNSIGNED_ZERO_POINT: Final = -128
"""Zero point of an int8 activation that is never negative."""

_INT32_MAX: Final = 2**31 - 1
_CONV_RANK: Final = 3


def quantise_parameters(
    parameters: Mapping[str, npt.NDArray[np.float32]], quantisation: Quantisation
) -> dict[str, Array]:
    """Return the initialisers of `infer.onnx` that follow from `parameters`.

    For layer `i` with weight `w` and bias `b`: `w.q` int8 (filters, channels, taps) or (inputs, units), `w.scale`
    float32 (units,), `b.q` int32 (units,), `b.scale` float32 (units,), `w.input_scale` float32 ().
    """
    amax = parameters[quantisation.amax]
    tensors: dict[str, Array] = {}
    for layer in quantisation.layers:
        input_scale = activation_scale(float(amax[layer.amax_index]), signed=layer.signed)
        tensors |= _layer_tensors(layer, parameters, input_scale, quantisation.weight_qmax)
    return tensors


def real_tensors(quantised: Mapping[str, Array], quantisation: Quantisation) -> dict[str, Array]:
    """Return what the integers of `quantise_parameters` stand for, float32: `w.real` shaped as `w.q`, and `b.real`.

    A runtime that computes a layer in float multiplies by these and so stays with the numbers of the integer form.
    """
    tensors: dict[str, Array] = {}
    for layer in quantisation.layers:
        values, scale = quantised[f"{layer.weight}.q"], quantised[f"{layer.weight}.scale"]
        units_first = values.ndim == _CONV_RANK
        spread = scale[:, np.newaxis, np.newaxis] if units_first else scale
        bias = quantised[f"{layer.bias}.q"] * quantised[f"{layer.bias}.scale"].astype(np.float64)
        tensors[f"{layer.weight}.real"] = (values * spread).astype(np.float32)
        tensors[f"{layer.bias}.real"] = bias.astype(np.float32)
    return tensors


def activation_scale(amax: float, *, signed: bool) -> float:
    """Scale of an int8 activation whose largest magnitude is `amax`."""
    return max(amax / (127 if signed else 255), MIN_SCALE)


def _layer_tensors(
    layer: QuantisedLayer,
    parameters: Mapping[str, npt.NDArray[np.float32]],
    input_scale: float,
    qmax: int,
) -> dict[str, Array]:
    weight, bias = parameters[layer.weight], parameters[layer.bias]
    flat = weight.reshape(-1, weight.shape[-1])
    scale = np.maximum(np.abs(flat).max(axis=0) / np.float32(qmax), np.float32(MIN_SCALE)).astype(np.float32)
    values = np.clip(np.round(weight / scale), -qmax, qmax).astype(np.int8)
    if values.ndim == _CONV_RANK:  # (taps, channels, filters) to the order of the ONNX operator Conv
        values = np.ascontiguousarray(values.transpose(2, 1, 0))
    bias_scale = (scale * np.float32(input_scale)).astype(np.float32)
    bias_values = np.clip(np.round(bias.astype(np.float64) / bias_scale), -_INT32_MAX, _INT32_MAX)
    return {
        f"{layer.weight}.q": values,
        f"{layer.weight}.scale": scale,
        f"{layer.weight}.input_scale": np.array(input_scale, np.float32),
        f"{layer.bias}.q": bias_values.astype(np.int32),
        f"{layer.bias}.scale": bias_scale,
    }
