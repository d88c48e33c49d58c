"""What a model says about one window, in the words of its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bedside.agent.buffer.rows import HOLDS, Output, Prediction, likely
from bedside.ondevice.heads import Head
from bedside.ondevice.runtimes import Float32


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One answer.

    Attributes:
        head: names the outputs.
        values: (outputs,) float32, in the order of the head's labels: probabilities, or values in their units.
    """

    head: Head
    values: Float32

    @property
    def label(self) -> str:
        """The most probable class; of several labels the most probable one, empty where none is likely.

        Of a regression it is the name of its first output.
        """
        if self.head.task == "regression":
            return self.head.labels[0]
        top = int(self.values.argmax())
        likely = self.head.task == "classification" or self.values[top] >= HOLDS
        return self.head.labels[top] if likely else ""

    @property
    def confidence(self) -> float:
        """Probability of `label`, 0 to 1; where that is empty, the probability that its likeliest label does not hold.

        Of a regression 1: a value has none, and no limit of confidence leaves it out.
        """
        if self.head.task == "regression":
            return 1.0
        top = float(self.values.max())
        return top if self.label else 1.0 - top

    @property
    def said(self) -> str:
        """What two models agree on or not: the class, or all labels that are likely; of values their first name."""
        if self.head.task != "multilabel":
            return self.label
        return likely(self.outputs)

    @property
    def classes(self) -> Mapping[str, float]:
        """Probabilities by class; of a classification only."""
        if self.head.task != "classification":
            return {}
        return dict(zip(self.head.labels, map(float, self.values), strict=True))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Every output; of a classification none, as `label` and `confidence` are all that is kept of it."""
        if self.head.task == "classification":
            return ()
        named = zip(self.head.labels, map(float, self.values), self.head.units, strict=True)
        return tuple(Output(*one) for one in named)

    def probability(self, label: str) -> float | None:
        """Probability of a class or label, likely or not; None where the model does not know it."""
        return self._of(label) if self.head.task != "regression" else None

    def value(self, output: str) -> float | None:
        """Value of an output of a regression, in its unit; None where the model has none of that name."""
        return self._of(output) if self.head.task == "regression" else None

    def beside(self, stored: Prediction) -> float:
        """How far it is from what was stored: the largest difference, of values relative to them where above 1."""
        if not stored.outputs:
            return abs((self.probability(stored.label) or 0.0) - stored.confidence)
        pairs = [(self._of(one.name) or 0.0, one.value) for one in stored.outputs]
        return max(abs(now - then) / max(1.0, abs(then)) for now, then in pairs)

    def _of(self, name: str) -> float | None:
        labels = self.head.labels
        return float(self.values[labels.index(name)]) if name in labels else None
