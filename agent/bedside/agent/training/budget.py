"""What a training may take of this device, and whether it would: a plan that costs more is declined with both numbers.

What is trained is for the plan to say, never for the device: one that chose a smaller part would stand out in a sum.

Source: DESIGN section 6.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bedside.core.bundle.training import Cost
from bedside.core.errors import RefusedError

WARM_STEPS: Final = 5
"""The quickest of so many steps tells this device's speed: the first ones allocate, and others run beside it."""


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one training may take.

    Attributes:
        memory_mb: resident memory, the smaller one of what is configured and what is free.
        examples_bytes: windows in memory; the others are put aside on the disk.
        timeout_s: time that it may take in all, pauses not counted.
        closes_in_s: time until nobody wants its outcome any more; None for ever.
        save_every_s: time between two states on the disk.
    """

    memory_mb: float = 1_024.0
    examples_bytes: int = 64 << 20
    timeout_s: float = 3_600.0
    closes_in_s: float | None = None
    save_every_s: float = 30.0


def check_memory(cost: Cost | None, budget: Budget, examples_bytes: int) -> None:
    """Refuse a training that would take more memory than there is.

    Args:
        cost: of its graph and batch; None where its author measured nothing.
        budget: of this device.
        examples_bytes: that its windows have in all; those beyond the budget's are not in memory.

    Raises:
        RefusedError: `unaffordable-memory`.
    """
    if cost is None:
        return
    needed_mb = cost.rss_mb + min(examples_bytes, budget.examples_bytes) / 1e6
    if needed_mb > budget.memory_mb:
        raise RefusedError(
            "unaffordable-memory",
            f"training {cost.graph} in batches of {cost.batch} takes {needed_mb:.0f} MB, and {budget.memory_mb:.0f} MB "
            "are there for it",
            remedy="plan a smaller batch or a shorter suffix, or raise training.memory_mib where there is memory",
        )


def check_time(step_s: float, steps_left: int, spent_s: float, budget: Budget) -> None:
    """Refuse a training that would not end in time.

    Args:
        step_s: of one step on this device.
        steps_left: to come.
        spent_s: so far, pauses not counted.
        budget: of this device; its `closes_in_s` as it is now.

    Raises:
        RefusedError: `unaffordable-time`.
    """
    needed_s = step_s * steps_left
    left_s, until = budget.timeout_s - spent_s, "training.timeout_s"
    if budget.closes_in_s is not None and budget.closes_in_s < left_s:
        left_s, until = budget.closes_in_s, "the round's close"
    if needed_s > left_s:
        raise RefusedError(
            "unaffordable-time",
            f"{steps_left} steps of {1e3 * step_s:.1f} ms take {needed_s:.0f} s here, and {max(0.0, left_s):.0f} s are "
            f"left until {until}",
            remedy="plan fewer epochs or a longer round, or raise training.timeout_s",
        )
