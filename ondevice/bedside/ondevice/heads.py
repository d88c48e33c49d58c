"""What a model's logits say, by its task: probabilities of classes, a probability of each label, or measured values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from bedside.core.bundle.manifest import Manifest, Targets
from bedside.core.bundle.training import Task
from bedside.ondevice.runtimes import Float32

COLDEST: Final = 0.05
HOTTEST: Final = 20.0
"""Bounds of a temperature."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last step from a net to an answer.

    Attributes:
        task: what the outputs are.
        labels: names of the outputs.
        targets: what the values of a regression stand for; None for other tasks.
        temperature: divides the logits of classes and labels (Guo et al. 2017, section 4.2); 1 leaves them alone.
    """

    task: Task
    labels: tuple[str, ...]
    targets: Targets | None = None
    temperature: float = 1.0

    @classmethod
    def of(cls, manifest: Manifest, temperature: float = 1.0) -> Self:
        """The head of a bundle's models; `temperature` is the device's own."""
        targets = manifest.targets if isinstance(manifest.targets, Targets) else None
        return cls(manifest.task, manifest.labels, targets, temperature)

    @property
    def units(self) -> tuple[str, ...]:
        """UCUM code of each output; empty for probabilities. A value without a dimension has 1."""
        return ("",) * len(self.labels) if self.targets is None else tuple(unit or "1" for unit in self.targets.unit)

    def answers(self, logits: Float32) -> Float32:
        """Return (N, outputs) float32 for logits of that shape.

        Classes: softmax. Labels: a sigmoid each. Regression: target = y / scale + offset, in its unit;
        one that float32 cannot hold is not finite.
        """
        if self.targets is not None:
            values: Float32 = logits / np.array(self.targets.scale) + np.array(self.targets.offset)
            with np.errstate(over="ignore"):  # for who asks to see
                return values.astype(np.float32)
        if self.temperature != 1.0:
            logits = (logits / np.float32(self.temperature)).astype(np.float32)
        if self.task == "multilabel":
            wide = logits.astype(np.float64)
            odds = np.exp(-np.abs(wide))
            sigmoid: Float32 = np.where(wide >= 0, 1 / (1 + odds), odds / (1 + odds)).astype(np.float32)
            return sigmoid
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax: Float32 = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return softmax
