"""A small net in numpy: softmax regression, or one hidden layer; float32, plain SGD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .data import Examples, Floats, Labels

Tensors = dict[str, Floats]


@dataclass(frozen=True)
class Net:
    """Shapes; parameters are passed around as named tensors.

    Attributes:
        features: inputs.
        hidden: units of the hidden layer; 0 is softmax regression.
        classes: outputs.
    """

    features: int
    hidden: int
    classes: int

    def create(self, rng: np.random.Generator) -> Tensors:
        """Fresh parameters (He et al., ICCV 2015, for the hidden layer)."""
        if not self.hidden:
            return {"w0": np.zeros((self.features, self.classes), np.float32), "b0": np.zeros(self.classes, np.float32)}
        first = rng.standard_normal((self.features, self.hidden)) * (2 / self.features) ** 0.5
        second = rng.standard_normal((self.hidden, self.classes)) * (1 / self.hidden) ** 0.5
        return {
            "w0": first.astype(np.float32),
            "b0": np.zeros(self.hidden, np.float32),
            "w1": second.astype(np.float32),
            "b1": np.zeros(self.classes, np.float32),
        }

    def predict(self, tensors: Tensors, x: Floats) -> Labels:
        """The most likely class of each example."""
        logits, _ = _logits(tensors, x)
        found: Labels = logits.argmax(axis=1)
        return found

    def accuracy(self, tensors: Tensors, examples: Examples) -> float:
        """Share of right predictions."""
        return float((self.predict(tensors, examples.x) == examples.y).mean())


@dataclass(frozen=True)
class Schedule:
    """Local training of one round."""

    epochs: int
    batch: int
    learning_rate: float


def train(start: Tensors, examples: Examples, schedule: Schedule, rng: np.random.Generator) -> Tensors:
    """New minus old parameters after some epochs of SGD."""
    now = {name: tensor.copy() for name, tensor in start.items()}
    rate = np.float32(schedule.learning_rate)
    for _ in range(schedule.epochs):
        order = rng.permutation(len(examples.y))
        for at in range(0, order.size, schedule.batch):
            part = order[at : at + schedule.batch]
            for name, gradient in _gradients(now, examples.x[part], examples.y[part]).items():
                now[name] -= rate * gradient
    return {name: now[name] - start[name] for name in now}


def _logits(tensors: Tensors, x: Floats) -> tuple[Floats, Floats]:
    last = x
    if "w1" in tensors:
        last = np.maximum(x @ tensors["w0"] + tensors["b0"], 0)
        return last @ tensors["w1"] + tensors["b1"], last
    return x @ tensors["w0"] + tensors["b0"], last


def _gradients(tensors: Tensors, x: Floats, y: Labels) -> Tensors:
    """Of the mean cross-entropy."""
    logits, last = _logits(tensors, x)
    logits -= logits.max(axis=1, keepdims=True)
    error: npt.NDArray[np.float32] = np.exp(logits)
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(y.size), y] -= 1
    error /= np.float32(y.size)
    if "w1" not in tensors:
        return {"w0": x.T @ error, "b0": error.sum(axis=0)}
    back = (error @ tensors["w1"].T) * (last > 0)
    return {"w0": x.T @ back, "b0": back.sum(axis=0), "w1": last.T @ error, "b1": error.sum(axis=0)}
