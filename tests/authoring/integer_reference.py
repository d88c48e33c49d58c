"""The deployed net in plain numpy, twice: in float with rounding as training has it, and in whole numbers."""

import numpy as np

from bedside.core.bundle.layers import (
    Add,
    BatchNorm,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    MaxPool,
    Relu,
    Standardise,
)

EPSILON = 1e-5


def fake_quantised(steps, parameters, x, qmax):
    """Outputs float64, batch norms by their running statistics; weights and inputs rounded unless `qmax` is 0.

    Returns them with the largest magnitude at the input of every layer with weights.
    """
    ranges = []

    def weighted(step, value):
        weight, bias = (parameters[f"{name}{step.order}"].astype(np.float64) for name in "wb")
        ranges.append(np.abs(value).max())
        if qmax:
            levels = 127 if step.signed else 255
            scale = float(parameters["amax"][step.order]) / levels
            value = np.clip(np.round(value / scale), -levels if step.signed else 0, levels) * scale
            scale = np.abs(weight.reshape(-1, weight.shape[-1])).max(axis=0) / qmax
            weight = np.round(weight / scale) * scale
        return apply(step.kernel, value, weight) + bias

    return run(steps, x.astype(np.float64), weighted, parameters), np.array(ranges, np.float32)


def in_integers(steps, quantised, x):
    """Outputs float64; sums of products are those of integers, and no batch norm is left."""

    def weighted(step, value):
        name = f"w{step.order}"
        scale, zero = float(quantised[f"{name}.input_scale"]), 0 if step.signed else -128
        whole = np.clip(np.round(value / scale) + zero, -128, 127).astype(np.int64) - zero
        weight = quantised[f"{name}.q"].astype(np.int64)
        order = {"conv": (2, 1, 0), "depthwise": (2, 0, 1), "dense": (0, 1)}[step.kernel.form]
        weight = weight.transpose(order)
        if step.kernel.form == "depthwise":
            weight = weight[:, :, 0]
        total = apply(step.kernel, whole, weight) + quantised[f"b{step.order}.q"].astype(np.int64)
        assert total.dtype == np.int64
        assert np.abs(total).max() < 2**31
        return total * quantised[f"b{step.order}.scale"].astype(np.float64)

    return run(steps, x.astype(np.float64), weighted, quantised)


def run(steps, value, weighted, tensors):
    given = []
    for step in steps:
        if isinstance(step.layer, Add):
            skipped = given[step.skip]
            value = value + (weighted(step, skipped) if step.kernel else skipped)
        elif step.kernel:
            value = weighted(step, value)
        else:
            value = plain(step, value, tensors)
        given.append(value)
    return value


def plain(step, value, tensors):
    match step.layer:
        case Relu():
            return np.maximum(value, 0)
        case MaxPool():
            return value.reshape(len(value), -1, 2, value.shape[2]).max(axis=2)
        case GlobalAveragePool():
            return value.mean(axis=1)
        case Flatten():
            return value.reshape(len(value), -1)
        case GroupNorm(groups=groups):
            grouped = value.reshape(*value.shape[:2], groups, -1)
            mean, variance = (f(axis=(1, 3), keepdims=True) for f in (grouped.mean, grouped.var))
            normal = ((grouped - mean) / np.sqrt(variance + EPSILON)).reshape(value.shape)
            return normal * tensors[f"gamma{step.norm}"] + tensors[f"beta{step.norm}"]
        case BatchNorm():
            if f"mean{step.norm}" not in tensors:  # folded
                return value
            gamma, beta, mean, variance = (tensors[f"{n}{step.norm}"] for n in ("gamma", "beta", "mean", "variance"))
            return (value - mean) / np.sqrt(variance.astype(np.float64) + EPSILON) * gamma + beta
        case Standardise():
            if f"mul{step.norm}" in tensors:
                return value * tensors[f"mul{step.norm}"] + tensors[f"add{step.norm}"]
            mean, square = (tensors[f"{n}{step.norm}"].astype(np.float64) for n in ("mean", "square"))
            return (value - mean) / np.sqrt(square - mean * mean + EPSILON)
    raise AssertionError(step.layer)


def apply(kernel, value, weight):
    """A weight (taps, inputs, outputs), (taps, channels) or (inputs, units) on (N, L, C) or (N, inputs)."""
    if kernel.form == "dense":
        return value @ weight
    margin, length = kernel.taps // 2, value.shape[1]
    padded = np.pad(value, ((0, 0), (margin, margin), (0, 0)))
    taken = [padded[:, tap : tap + length : kernel.stride] for tap in range(kernel.taps)]
    products = (part @ w if kernel.form == "conv" else part * w for part, w in zip(taken, weight, strict=True))
    return sum(products)
