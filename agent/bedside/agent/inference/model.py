"""One model that is ready, and what it says about one window."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from bedside.agent.inference.answer import Answer
from bedside.core.errors import MalformedError
from bedside.ondevice.heads import Head
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
            MalformedError: as `logits`; `bad-answer` also where a value in its unit is not finite.
        """
        answers = self.head.answers(self.logits(x))
        if not np.isfinite(answers).all():
            raise _bad_answer()
        return answers

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
            raise _bad_answer()
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What a model says about one window.

    Attributes:
        model: who says so.
        window: what about.
        answer: what it says.
    """

    model: Model
    window: ClosedWindow
    answer: Answer


def decide(model: Model, window: ClosedWindow) -> Decision:
    """Predict one window.

    Raises:
        MalformedError: `bad-window`, `bad-answer`: see `Model.answers`.
    """
    return Decision(model, window, Answer(model.head, model.answers(window.values[np.newaxis])[0]))


def _bad_answer() -> MalformedError:
    return MalformedError(
        BAD_ANSWER,
        "the model's answer to a window is not finite",
        remedy="return to the model before it with `bedside agent model rollback`",
    )


def _bad_window(sentence: str) -> MalformedError:
    return MalformedError(BAD_WINDOW, sentence, remedy="check the stream's source and the model's window")
