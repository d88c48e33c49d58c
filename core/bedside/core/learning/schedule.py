"""How a rate of the devices' training falls from a run's first round to its last."""

from __future__ import annotations

import math


def half_cosine(first: float, last: float, number: int, rounds: int) -> float:
    """The rate of one round: `first` in round 1, `last` in the last one, along half a cosine between them.

    Args:
        first: rate of the first round.
        last: rate of the last round; a run of one round has `first`.
        number: of the round, from 1.
        rounds: of the run.

    Source: Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", eq. 5, without restarts
    and by rounds instead of batches.
    """
    turn = math.cos(math.pi * (number - 1) / max(1, rounds - 1))
    return last + (first - last) * (1 + turn) / 2
