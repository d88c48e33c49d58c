"""The net once more in plain numpy, float64: loss, and what fake quantisation makes of it. Written from the papers."""

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

DECAY = 0.9
EPSILON = 1e-5


class Seen:
    """What a forward pass gives: `loss`, `ranges`, the last layer's input as `used`, and the `outputs`."""

    def __init__(self, net, parameters, x, y, *, qmax=0, first=0):
        self.parameters = {name: array.astype(np.float64) for name, array in parameters.items()}
        self.qmax, self.first, self.ranges, self.used = qmax, first, [], None
        values = [x.astype(np.float64)]
        for step in net.steps:
            values.append(self.apply(step, values))
        self.outputs = values[-1]
        self.loss = loss_of(net, self.outputs, y)

    def apply(self, step, values):
        value = values[-1]
        if step.kernel is not None:
            skipped = value if step.skip < 0 else values[step.skip + 1]
            given = self.weighted(step, skipped)
            return given if step.skip < 0 else value + given
        if isinstance(step.layer, Add):
            return value + values[step.skip + 1]
        if isinstance(step.layer, GroupNorm | BatchNorm | Standardise):
            return self.normed(step, value)
        return plain(step, value)

    def weighted(self, step, value):
        old, largest = self.parameters["amax"][step.order], np.abs(value).max()
        self.ranges.append(old if step.number < self.first else DECAY * old + (1 - DECAY) * largest)
        weight = self.parameters[f"w{step.order}"]
        if self.qmax:
            value = round_input(value, self.ranges[-1], step.signed)
            weight = round_weight(weight, self.qmax)
        self.used = value
        return multiply(step.kernel, value, weight) + self.parameters[f"b{step.order}"]

    def normed(self, step, value):
        norm = step.norm
        if isinstance(step.layer, Standardise):
            mean = self.parameters[f"mean{norm}"]
            return (value - mean) / np.sqrt(self.parameters[f"square{norm}"] - mean**2 + EPSILON)
        if isinstance(step.layer, GroupNorm):
            grouped = value.reshape(len(value), value.shape[1], step.layer.groups, -1)
            mean, variance = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
            value = ((grouped - mean) / np.sqrt(variance + EPSILON)).reshape(value.shape)
        elif step.number < self.first:
            running = self.parameters[f"variance{norm}"]
            value = (value - self.parameters[f"mean{norm}"]) / np.sqrt(running + EPSILON)
        else:
            axes = tuple(range(value.ndim - 1))
            value = (value - value.mean(axes)) / np.sqrt(value.var(axes) + EPSILON)
        return value * self.parameters[f"gamma{norm}"] + self.parameters[f"beta{norm}"]


def loss_of(net, outputs, y):
    weights = np.array(net.class_weights or [1.0] * net.outputs)
    if net.task == "regression":
        return ((outputs - y) ** 2).mean()
    if net.task == "multilabel":
        probability = 1 / (1 + np.exp(-outputs))
        return -(weights * (y * np.log(probability) + (1 - y) * np.log(1 - probability))).mean()
    picked = np.log(softmax(outputs))[np.arange(len(y)), y]
    return -(weights[y] * picked).sum() / weights[y].sum()


def softmax(outputs):
    raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def plain(step, value):
    match step.layer:
        case Relu():
            return np.maximum(value, 0)
        case MaxPool():
            return value.reshape(len(value), -1, 2, value.shape[2]).max(axis=2)
        case GlobalAveragePool():
            return value.mean(axis=1)
        case Flatten():
            return value.reshape(len(value), -1)
        case _:
            raise AssertionError("it has parameters")


def multiply(kernel, value, weight):
    if kernel.form == "dense":
        return value @ weight
    taps, length = kernel.taps, value.shape[1]
    padded = np.pad(value, ((0, 0), (taps // 2, taps // 2), (0, 0)))
    windows = [padded[:, tap : tap + length : kernel.stride] for tap in range(taps)]
    if kernel.form == "depthwise":
        return sum(window * row for window, row in zip(windows, weight, strict=True))
    return sum(window @ matrix for window, matrix in zip(windows, weight, strict=True))


def round_input(value, amax, signed):
    levels = 127 if signed else 255
    scale = amax / levels
    return np.clip(np.round(value / scale), -levels if signed else 0, levels) * scale


def round_weight(weight, qmax):
    scale = np.abs(weight.reshape(-1, weight.shape[-1])).max(axis=0) / qmax
    return np.round(weight / scale) * scale
