"""Make a failing schedule short: leave out operations as long as it still fails.

.venv/bin/pytest tests/simulation -k one_schedule       # with BEDSIDE_SEED: prints the shortened schedule
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim_run import Operation


def shrink(operations: Sequence[Operation], fails: Callable[[Sequence[Operation]], bool], runs: int) -> list[Operation]:
    """Delta debugging (Zeller and Hildebrandt 2002), for at most so many runs.

    Args:
        operations: a schedule that fails.
        fails: whether a schedule still does.
        runs: how often `fails` may be asked.

    Returns:
        A schedule that fails, and is no longer than the one given.
    """
    kept, piece = list(operations), max(len(operations) // 2, 1)
    while runs > 0:
        start, before = 0, len(kept)
        while start < len(kept) and runs > 0:
            shorter = kept[:start] + kept[start + piece :]
            runs -= 1
            if fails(shorter):
                kept = shorter
            else:
                start += piece
        if piece == 1 and len(kept) == before:
            break
        piece = max(piece // 2, 1)
    return kept
