"""Numbers as one line of block characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


def sparkline(values: npt.NDArray[np.float32], width: int) -> str:
    """Draw a signal between its own least and largest value, `width` characters wide; empty for no signal."""
    if not values.size:
        return ""
    edges = np.linspace(0, values.size, width + 1).astype(int)
    means = [float(values[a : max(b, a + 1)].mean()) for a, b in pairwise(edges) if a < len(values)]
    low, high = min(means), max(means)
    span = high - low or 1.0
    return "".join(_BLOCKS[1 + round((value - low) / span * 7)] for value in means)


def columns(counts: Sequence[int], width: int, height: int) -> list[str]:
    """Draw a histogram as `height` lines, top first, joining bins so that it is at most `width` characters wide."""
    per_column = -(-len(counts) // width)
    joined = [sum(counts[at : at + per_column]) for at in range(0, len(counts), per_column)]
    if len(counts) % per_column:
        joined[-1] = joined[-1] * per_column // (len(counts) % per_column)
    peak = max([1, *joined])
    eighths = [round(count / peak * height * 8) for count in joined]
    return ["".join(_BLOCKS[min(8, max(0, level - 8 * row))] for level in eighths) for row in reversed(range(height))]
