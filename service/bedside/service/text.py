"""Strings from elsewhere, made safe for a log line and a terminal."""

from __future__ import annotations

import unicodedata
from typing import Final, TypeVar

from bedside.core.limits import MAX_TEXT_CHARS

_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_FORMULA_BEGINS: Final = ("=", "+", "-", "@", "\t", "\r")
Cell = TypeVar("Cell")


def bounded(text: str, max_chars: int = MAX_TEXT_CHARS) -> str:
    """Return `text` cut to `max_chars` characters, with control and invisible characters written as escapes.

    Line breaks, terminal escapes, and the marks that reorder a line (Unicode bidi controls) cannot get through.
    """
    head = text[:max_chars]
    if not (head.isascii() and head.isprintable()):
        head = "".join(_visible(character) for character in head)
    return head if len(text) <= max_chars and len(head) <= max_chars else head[: max_chars - 1] + "…"


def for_spreadsheet(cell: Cell) -> Cell | str:
    """A cell of a CSV file that no spreadsheet takes for a formula: text that looks like one begins with a quote."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_BEGINS) else cell


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE_CATEGORIES:
        return character
    return character.encode("unicode_escape").decode("ascii")
