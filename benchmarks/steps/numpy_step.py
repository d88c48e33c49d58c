"""`python numpy_step.py JOB`: the same step by hand in numpy: forward, backward and SGD, nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu
from steps.job import Arrays, Job, measure


def columns(x: np.ndarray, taps: int) -> np.ndarray:
    """(N, L, C) to (N x L, taps x C), zeros around the window."""
    padded = np.pad(x, ((0, 0), (taps // 2, taps // 2), (0, 0)))
    view = np.lib.stride_tricks.sliding_window_view(padded, taps, axis=1)
    return view.transpose(0, 1, 3, 2).reshape(-1, taps * x.shape[2])


def spread(slope: np.ndarray, taps: int, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of columns summed over the inputs that they were copied from."""
    count, length, channels = shape
    parts = slope.reshape(count, length, taps, channels)
    padded = np.zeros((count, length + taps - 1, channels), np.float32)
    for tap in range(taps):
        padded[:, tap : tap + length] += parts[:, :, tap]
    return padded[:, taps // 2 : taps // 2 + length]


class Net:
    """Layers with what they need to go back."""

    def __init__(self, job: Job, start: Arrays) -> None:
        self.layers, self.rate, self.momentum = job.layers, np.float32(job.learning_rate), np.float32(job.momentum)
        self.state = {name: array.copy() for name, array in start.items()}
        self.velocity = {name: np.zeros_like(array) for name, array in start.items()}

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """One step of SGD with momentum; the loss before it."""
        value, tape, order = x, [], 0
        for layer in self.layers:
            value, kept = self._forward(layer, value, order)
            tape.append((layer, kept, order))
            order += isinstance(layer, Conv1d | Dense)
        value = value - value.max(axis=1, keepdims=True)
        log = value - np.log(np.exp(value).sum(axis=1, keepdims=True))
        slope = np.exp(log)
        slope[np.arange(len(y)), y] -= 1
        slope /= np.float32(len(y))
        for layer, kept, order in reversed(tape):
            slope = self._backward(layer, kept, order, slope)
            if order == 0 and isinstance(layer, Conv1d | Dense):  # nothing below has parameters
                break
        return float(-log[np.arange(len(y)), y].mean())

    def _forward(self, layer: object, x: np.ndarray, order: int) -> tuple[np.ndarray, object]:
        match layer:
            case Conv1d(taps=taps):
                rows, weight = columns(x, taps), self.state[f"w{order}"]
                y = rows @ weight.reshape(-1, weight.shape[2]) + self.state[f"b{order}"]
                return y.reshape(*x.shape[:2], -1), (rows, x.shape)
            case Dense():
                return x @ self.state[f"w{order}"] + self.state[f"b{order}"], (x, x.shape)
            case Relu():
                return np.maximum(x, 0), x > 0
            case MaxPool():
                first, second = x[:, ::2], x[:, 1::2]
                return np.maximum(first, second), first >= second
            case GlobalAveragePool():
                return x.mean(axis=1), x.shape
            case Flatten():
                return x.reshape(len(x), -1), x.shape
        raise AssertionError(layer)

    def _backward(self, layer: object, kept: object, order: int, slope: np.ndarray) -> np.ndarray:
        match layer:
            case Conv1d() | Dense():
                rows, shape = kept
                weight = self.state[f"w{order}"]
                flat, slope = weight.reshape(-1, weight.shape[-1]), slope.reshape(-1, weight.shape[-1])
                below = slope @ flat.T if order else slope
                self._move(f"w{order}", (rows.T @ slope).reshape(weight.shape))
                self._move(f"b{order}", slope.sum(axis=0))
                return spread(below, layer.taps, shape) if order and isinstance(layer, Conv1d) else below
            case Relu():
                return slope * kept
            case MaxPool():
                below = np.empty((slope.shape[0], 2 * slope.shape[1], slope.shape[2]), np.float32)
                below[:, ::2], below[:, 1::2] = slope * kept, slope * ~kept
                return below
            case GlobalAveragePool():
                return np.broadcast_to((slope / np.float32(kept[1]))[:, np.newaxis], kept)
        return slope.reshape(kept)

    def _move(self, name: str, gradient: np.ndarray) -> None:
        self.velocity[name] = self.momentum * self.velocity[name] + gradient
        self.state[name] = self.state[name] - self.rate * self.velocity[name]


def build(job: Job, start: Arrays) -> tuple[object, object]:
    """A step by hand."""
    net = Net(job, start)
    return net.step, lambda: net.state


if __name__ == "__main__":
    measure(build)
