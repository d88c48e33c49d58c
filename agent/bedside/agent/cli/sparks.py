"""Numbers as block characters, as wide as there is room."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

_LEVELS: Final = "▁▂▃▄▅▆▇█"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def sparkline(values: npt.NDArray[np.float32], width: int) -> str:
    """A signal between its own least and largest value, `width` characters wide; empty for no signal.

    Each character stands at the value that lies furthest from the middle among those it covers, so that a short peak
    (a heart beat) does not vanish in a mean.
    """
    finite = values[np.isfinite(values)]
    if not finite.size or width < 1:
        return ""
    middle = float(np.median(finite))
    edges = np.linspace(0, finite.size, min(width, finite.size) + 1).astype(int)
    pieces = [finite[start:end] for start, end in pairwise(edges)]
    heights = [float(piece[np.abs(piece - middle).argmax()]) for piece in pieces]
    low, high = min(heights), max(heights)
    span = high - low or 1.0
    return "".join(_LEVELS[round((height - low) / span * 7)] for height in heights)


def bar(share: float, width: int) -> str:
    """A share from 0 to 1 as a bar of exactly `width` characters, to an eighth of one."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    whole, rest = divmod(eighths, 8)
    text = "█" * whole + (_EIGHTHS[rest] if rest else "")
    return text.ljust(width)


class Spark:
    """A sparkline that fills its column."""

    def __init__(self, values: npt.NDArray[np.float32], style: str) -> None:
        self._values = values
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as wide as the column is."""
        del console
        yield Text(sparkline(self._values, options.max_width), style=self._style, no_wrap=True, end="")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Anything from eight characters on will do."""
        del console
        return Measurement(min(8, options.max_width), options.max_width)


class Bar:
    """A bar that fills its column, on a dim ground."""

    def __init__(self, share: float, style: str) -> None:
        self._share = share
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as wide as the column is."""
        del console
        yield Text(bar(self._share, options.max_width), style=f"{self._style} on grey19", no_wrap=True, end="")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Anything from eight characters on will do."""
        del console
        return Measurement(min(8, options.max_width), options.max_width)
