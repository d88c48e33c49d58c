"""One number of a message, as far as it says one without a doubt."""

from __future__ import annotations

import math
import re
from typing import Final

MAX_NUMBER_CHARS: Final = 64
"""Characters of a number as text: a double needs 25."""

_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_NONE: Final = frozenset({"", "nan"})
"""What says that there is no number, in small letters."""


def number_of(value: object) -> float | None:
    """The number that a message says.

    Args:
        value: a number, text, or None for an empty field.

    Returns:
        A float, infinite where it is too large; NaN where the message says that there is none; None for anything else:
        a decimal comma, `<5`, `12 (L)`, a word, a truth value. None of those is guessed.
    """
    match value:
        case None:
            return math.nan
        case bool():
            return None
        case float():
            return value
        case int():
            return _bounded(value)
        case str() if len(value) <= MAX_NUMBER_CHARS:
            text = value.strip(" \t")
            if text.casefold() in _NONE:
                return math.nan
            return float(text) if _NUMBER.fullmatch(text) else None
        case _:
            return None


def _bounded(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
