"""Option types that several command groups share."""

from __future__ import annotations

import math
from typing import Final

import click

MAX_COUNT: Final = (1 << 31) - 1
"""What fits into every number field of the protocol; the receiver has limits of its own and words for them."""


class FiniteRange(click.FloatRange):
    """A range that refuses what is no number: comparisons with `nan` would let it through."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a finite number in the range. Raises click.BadParameter."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is no finite number.", param, ctx)
        return number


COUNT: Final = click.IntRange(1, MAX_COUNT)
NUMBER: Final = click.IntRange(0, MAX_COUNT)
