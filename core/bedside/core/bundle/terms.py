"""Bounds of what a manifest says about golden vectors and costs: a replay must end, and must decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bedside.core.bundle.bounds import MAX_COSTS, MAX_GOLDEN_STEPS, MAX_TENSORS
from bedside.core.errors import MalformedError

if TYPE_CHECKING:
    from bedside.core.bundle.manifest import Golden
    from bedside.core.bundle.training import Cost


def check_golden(golden: Golden) -> None:
    """Check the terms of a replay: some steps, finite rates, and at most one finite tolerance per tensor.

    Raises:
        MalformedError: `bad-manifest`.
    """
    names = [tolerance.tensor for tolerance in golden.tolerances]
    if not 1 <= golden.steps <= MAX_GOLDEN_STEPS:
        raise _bad(f"golden vectors come from 1 to {MAX_GOLDEN_STEPS} training steps, not {golden.steps}")
    if len(names) > MAX_TENSORS or len(set(names)) != len(names) or "classes" in names:
        raise _bad(f"there are at most {MAX_TENSORS} tolerances, one per golden tensor, and none of classes")
    rates = (golden.learning_rate, golden.momentum, golden.proximal_mu, golden.gradient_clip)
    if not all(_usable(value) for value in (*rates, *(tolerance.absolute for tolerance in golden.tolerances))):
        raise _bad("rates and tolerances of golden vectors are finite and not below 0")


def check_costs(costs: Sequence[Cost]) -> None:
    """Check that measured costs are numbers that can have been measured.

    Raises:
        MalformedError: `bad-manifest`.
    """
    if len(costs) > MAX_COSTS:
        raise _bad(f"there are at most {MAX_COSTS} costs, not {len(costs)}")
    if not all(cost.batch >= 1 and _usable(cost.step_ms) and _usable(cost.rss_mb) for cost in costs):
        raise _bad("a cost has a batch of 1 or more, and finite milliseconds and megabytes")
    if len({(cost.graph, cost.batch) for cost in costs}) != len(costs):
        raise _bad("a graph's cost with one batch is named twice")


def _usable(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-manifest", sentence, remedy="build the bundle again with `bedside model build`")
