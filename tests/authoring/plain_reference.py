"""The net once more in plain numpy, float64: loss, and what fake quantisation makes of it. Written from the papers."""

import numpy as np

from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu

DECAY = 0.9


def loss_and_ranges(steps, parameters, x, y, *, qmax=0):
    """Mean cross-entropy, the new ranges, and the input of the last layer as it is used; rounds when `qmax`."""
    ranges, used = [], None
    value = x.astype(np.float64)
    for step in steps:
        if step.order >= 0:
            largest = np.abs(value).max()
            ranges.append(DECAY * float(parameters["amax"][step.order]) + (1 - DECAY) * largest)
            weight = parameters[f"w{step.order}"].astype(np.float64)
            if qmax:
                value = round_input(value, ranges[-1], step.signed)
                weight = round_weight(weight, qmax)
            used = value
            bias = parameters[f"b{step.order}"].astype(np.float64)
            value = convolve(value, weight, bias) if isinstance(step.layer, Conv1d) else value @ weight + bias
        else:
            value = plain(step, value)
    shifted = value - value.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_probability[np.arange(len(y)), y].mean(), np.array(ranges), used, np.exp(log_probability)


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
        case Dense() | Conv1d():
            raise AssertionError("it has parameters")


def convolve(value, weight, bias):
    taps, length = len(weight), value.shape[1]
    padded = np.pad(value, ((0, 0), (taps // 2, taps // 2), (0, 0)))
    return sum(padded[:, tap : tap + length] @ weight[tap] for tap in range(taps)) + bias


def round_input(value, amax, signed):
    levels = 127 if signed else 255
    scale = amax / levels
    return np.clip(np.round(value / scale), -levels if signed else 0, levels) * scale


def round_weight(weight, qmax):
    scale = np.abs(weight.reshape(-1, weight.shape[-1])).max(axis=0) / qmax
    return np.round(weight / scale) * scale
