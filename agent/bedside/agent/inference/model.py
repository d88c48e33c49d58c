"""One model that is ready, and what it says about one window."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from bedside.core.errors import MalformedError
from bedside.ondevice.runtimes import Float32, Runtime

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
    """A model that is ready to serve. Its runtime is not thread-safe; `probabilities` is.

    Attributes:
        digest: of the checkpoint or bundle that its parameters come from (32 bytes).
        labels: class names in the order of the logits.
        shape: (L, C) of its windows.
        runtime: predicts.
    """

    digest: bytes
    labels: tuple[str, ...]
    shape: tuple[int, int]
    runtime: Runtime
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def busy(self) -> bool:
        """Whether it predicts at this moment, in another thread."""
        return self._lock.locked()

    def probabilities(self, x: Float32) -> Float32:
        """Return softmax probabilities (N, classes) of windows `x` (N, L, C), both float32; not calibrated.

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
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax: Float32 = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return softmax


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What a model says about one window.

    Attributes:
        model: who says so.
        window: what about.
        probabilities: (classes,) float32, in the order of the model's labels.
    """

    model: Model
    window: ClosedWindow
    probabilities: Float32

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.model.labels[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float:
        """Probability of `label`, 0 to 1."""
        return float(self.probabilities.max())

    def probability(self, label: str) -> float | None:
        """Probability of a class, whether it is the most probable or not; None where the model does not know it."""
        labels = self.model.labels
        return float(self.probabilities[labels.index(label)]) if label in labels else None


def decide(model: Model, window: ClosedWindow) -> Decision:
    """Predict one window.

    Raises:
        MalformedError: `bad-window`, `bad-answer`: see `Model.probabilities`.
    """
    return Decision(model, window, model.probabilities(window.values[np.newaxis])[0])


def _bad_window(sentence: str) -> MalformedError:
    return MalformedError(BAD_WINDOW, sentence, remedy="check the stream's source and the model's window")
