"""Counts as lines of block characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


def columns(counts: Sequence[int], width: int, height: int) -> list[str]:
    """Draw a histogram as `height` lines, top first, joining bins so that it is at most `width` characters wide."""
    per_column = -(-len(counts) // width)
    joined = [sum(counts[at : at + per_column]) for at in range(0, len(counts), per_column)]
    if len(counts) % per_column:
        joined[-1] = joined[-1] * per_column // (len(counts) % per_column)
    peak = max([1, *joined])
    eighths = [round(count / peak * height * 8) for count in joined]
    return ["".join(_BLOCKS[min(8, max(0, level - 8 * row))] for level in eighths) for row in reversed(range(height))]
