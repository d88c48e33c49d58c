"""Whether a model fails at work: more of its newest answers are none than chance explains."""

from __future__ import annotations

from collections import deque
from typing import Final

from bedside.agent.inference.model import BAD_WINDOW
from bedside.core.errors import BedsideError

_NEWEST: Final = 50
"""Answers that are looked at."""
_MOST: Final = 4
"""Failures among them that are borne: a tenth of them, rounded down to leave the fifth in a row to be too many."""


class Failing:
    """Counts the failures among a model's newest answers."""

    def __init__(self) -> None:
        self._failed: deque[bool] = deque(maxlen=_NEWEST)

    def add(self, error: BedsideError | None) -> bool:
        """Take what came of a window; returns whether the model fails. A bad window is no failure of a model."""
        self._failed.append(error is not None and error.code != BAD_WINDOW)
        return sum(self._failed) > _MOST
