"""One model that is ready, and what it says about one window."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from bedside.agent.buffer.rows import Output
from bedside.core.errors import MalformedError
from bedside.ondevice.heads import Head
from bedside.ondevice.runtimes import Float32, Runtime

HOLDS: Final = 0.5
"""Probability from which on one of several labels is likely."""
BAD_WINDOW: Final = "bad-window"
"""The window's fault."""
BAD_ANSWER: Final = "bad-answer"
"""The model's."""


class ClosedWindow(Protocol):
    """What is read of a window (`bedside.agent.windows.Window`)."""

    @property
    def stream(self) -> str: ...
    @property
    def session(self) -> str: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def end_ns(self) -> int: ...
    @property
    def values(self) -> Float32:
        """(L, C), normalised."""

    @property
    def closed_monotonic_s(self) -> float:
        """When its last sample arrived."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is ready to serve. Its runtime is not thread-safe; `answers` is.

    Attributes:
        digest: of the checkpoint or bundle that its parameters come from (32 bytes).
        head: what its logits say.
        shape: (L, C) of its windows.
        runtime: predicts.
    """

    digest: bytes
    head: Head
    shape: tuple[int, int]
    runtime: Runtime
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its outputs, in the order of the logits."""
        return self.head.labels

    @property
    def busy(self) -> bool:
        """Whether it predicts at this moment, in another thread."""
        return self._lock.locked()

    def answers(self, x: Float32) -> Float32:
        """Return what it says (N, outputs) of windows `x` (N, L, C), both float32, see `Head.answers`.

        Raises:
            MalformedError: as `logits`.
        """
        return self.head.answers(self.logits(x))

    def logits(self, x: Float32) -> Float32:
        """Return its net's outputs (N, outputs) of windows `x` (N, L, C), both float32.

        Raises:
            MalformedError: `bad-window`: the windows are not of the model's shape, or a value is not finite;
                `bad-answer`: a logit is not.
        """
        if x.shape[1:] != self.shape or not np.isfinite(x).all():
            raise _bad_window(f"a window has shape {x.shape[1:]} or a value that is not finite")
        with self._lock:
            logits = self.runtime.predict(x)
        if not np.isfinite(logits).all():
            raise MalformedError(
                BAD_ANSWER,
                "the model's answer to a window is not finite",
                remedy="return to the model before it with `bedside agent model rollback`",
            )
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What a model says about one window.

    Attributes:
        model: who says so.
        window: what about.
        answers: (outputs,) float32, in the order of the model's labels.
    """

    model: Model
    window: ClosedWindow
    answers: Float32

    @property
    def label(self) -> str:
        """The most probable class; of several labels the most probable one, empty where none is likely.

        Of a regression it is the name of its first output.
        """
        head = self.model.head
        if head.task == "regression":
            return head.labels[0]
        top = int(self.answers.argmax())
        return head.labels[top] if head.task == "classification" or self.answers[top] >= HOLDS else ""

    @property
    def confidence(self) -> float:
        """Probability of `label`, 0 to 1; where it is empty, that its likeliest label does not hold.

        Of a regression 0: a value has none.
        """
        if self.model.head.task == "regression":
            return 0.0
        top = float(self.answers.max())
        return top if self.label else 1.0 - top

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Every output; none of a classification, of which `label` says all that is kept."""
        head = self.model.head
        if head.task == "classification":
            return ()
        named = zip(head.labels, self.answers, head.units, strict=True)
        return tuple(Output(name, float(value), unit) for name, value, unit in named)

    def probability(self, label: str) -> float | None:
        """Probability of a class or label, likely or not; None where the model does not know it."""
        return self._of(label) if self.model.head.task != "regression" else None

    def value(self, output: str) -> float | None:
        """Value of an output of a regression, in its unit; None where the model has none of that name."""
        return self._of(output) if self.model.head.task == "regression" else None

    def _of(self, name: str) -> float | None:
        labels = self.model.labels
        return float(self.answers[labels.index(name)]) if name in labels else None


def decide(model: Model, window: ClosedWindow) -> Decision:
    """Predict one window.

    Raises:
        MalformedError: `bad-window`, `bad-answer`: see `Model.answers`.
    """
    return Decision(model, window, model.answers(window.values[np.newaxis])[0])


def _bad_window(sentence: str) -> MalformedError:
    return MalformedError(BAD_WINDOW, sentence, remedy="check the stream's source and the model's window")
