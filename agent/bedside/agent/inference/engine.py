"""The engine: a window goes in, a decision comes out.

The served model is one reference that `swap` replaces; a window is decided by the model that is there when it
arrives, whole. Nothing here waits: from a closed window to its decision is one session run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bedside.agent.inference.runtimes import Float32, Runtime
from bedside.core.clock import Clock
from bedside.core.errors import MalformedError


class ClosedWindow(Protocol):
    """What the engine reads of a window (`bedside.agent.windows.Window`)."""

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
    """A model that is ready to serve.

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


@dataclass(frozen=True, slots=True)
class Decision:
    """What the model says about one window.

    Attributes:
        stream: of the window.
        session: of the window.
        start_ns: of the window, nanoseconds since the epoch.
        end_ns: of the window.
        label: class of the largest logit.
        confidence: softmax of that logit, 0..1; not calibrated.
        logits: (classes,) float32.
        model_digest: which model said so.
        latency_s: from the arrival of the window's last sample to this decision.
    """

    stream: str
    session: str
    start_ns: int
    end_ns: int
    label: str
    confidence: float
    logits: Float32
    model_digest: bytes
    latency_s: float


class Engine:
    """Serves one model at a time."""

    def __init__(self, model: Model, clock: Clock) -> None:
        self._model = model
        self._clock = clock

    @property
    def model(self) -> Model:
        """The model that decides the next window."""
        return self._model

    def swap(self, model: Model) -> Model:
        """Serve `model` from the next window on; returns the one before, which can be swapped back."""
        before, self._model = self._model, model
        return before

    def decide(self, window: ClosedWindow) -> Decision:
        """Predict one window.

        Raises:
            MalformedError: `bad-window`: its shape is not the model's, or a value or logit is not finite.
        """
        model = self._model
        values = window.values
        if values.shape != model.shape or not np.isfinite(values).all():
            raise _bad(f"a window of {window.stream} has shape {values.shape} or a value that is not finite")
        logits = model.runtime.predict(values[np.newaxis])[0]
        if not np.isfinite(logits).all():
            raise _bad(f"the model's answer to a window of {window.stream} is not finite")
        best = int(logits.argmax())
        return Decision(
            stream=window.stream,
            session=window.session,
            start_ns=window.start_ns,
            end_ns=window.end_ns,
            label=model.labels[best],
            confidence=float(1.0 / np.exp(logits - logits[best]).sum()),
            logits=logits,
            model_digest=model.digest,
            latency_s=self._clock.monotonic_s() - window.closed_monotonic_s,
        )


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-window", sentence, remedy="check the stream's source and the model's window")
