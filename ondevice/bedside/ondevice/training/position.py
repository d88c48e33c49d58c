"""How far a training is: what it needs, beside the step's state, to go on as if it had never stopped.

The shuffle needs nothing of its own: epoch e's order is the e-th permutation that the schedule's seed gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from bedside.core.bundle.tensors import Array, Tensors


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One training, between two steps.

    Attributes:
        judged_before: examples that the start's parameters have classified.
        correct_before: of these, as labelled.
        losses: mean loss of each epoch that is over.
        step: steps of the present epoch that are over.
        loss_sum: of these.
        judged_after: examples that the last parameters have classified.
        correct_after: of these, as labelled.
    """

    judged_before: int = 0
    correct_before: int = 0
    losses: tuple[float, ...] = ()
    step: int = 0
    loss_sum: float = 0.0
    judged_after: int = 0
    correct_after: int = 0

    def steps_done(self, of_an_epoch: int) -> int:
        """Steps that are over, of epochs of so many."""
        return len(self.losses) * of_an_epoch + self.step


@dataclass(frozen=True, slots=True)
class Saved:
    """Where a training stopped, and the state of its step there."""

    position: Position
    state: Tensors


@dataclass(frozen=True, slots=True)
class Between:
    """Who is told between two steps.

    Attributes:
        position: where the training is.
        steps_left: optimiser steps that are still to come.
        state: takes the step's state out, which costs a copy.
    """

    position: Position
    steps_left: int
    state: Callable[[], dict[str, Array]]
