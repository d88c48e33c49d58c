"""Where a CSV file of ours ends: what a kill or a power cut left half at its end is not there."""

from __future__ import annotations

import csv
from typing import Final

from bedside.core.errors import MalformedError

MAX_LINE_BYTES: Final = 16_384
"""Of one line; ours are below 2 KiB."""
TAIL_BYTES: Final = 8 << 20
"""Of the end of a file: above one record of 256 lines."""


def sound_bytes(tail: bytes, columns: int, parts: tuple[int, int] | None) -> tuple[int, int]:
    """How many bytes of the end of a file are whole rows, and the number in the last of them, 0 where there is none.

    Args:
        tail: the end of the file, from the beginning of a line on, at most `TAIL_BYTES`.
        columns: cells of a line; the first is a number.
        parts: the columns that say which line of a row this is, and of how many; None where each line is a row.

    Raises:
        MalformedError: `csv-tail`: the last lines are not ours.
    """
    if len(tail) > TAIL_BYTES:
        raise MalformedError("csv-tail", f"more than {TAIL_BYTES} bytes were to be looked at")
    end = tail.rfind(b"\n") + 1
    if not end:
        return 0, 0
    number, place, of = _numbers(_last_line(tail, end), columns, parts)
    if place == of:
        return end, number
    for _ in range(place):  # half a row: its lines go
        if not end or _numbers(_last_line(tail, end), columns, parts)[0] != number:
            raise _not_ours("a row has fewer lines than it says")
        end = tail.rfind(b"\n", 0, end - 1) + 1
    if not end:
        return 0, 0
    return end, _numbers(_last_line(tail, end), columns, parts)[0]


def _last_line(tail: bytes, end: int) -> bytes:
    begin = tail.rfind(b"\n", 0, end - 1) + 1
    if end - begin > MAX_LINE_BYTES:
        raise _not_ours(f"a line exceeds {MAX_LINE_BYTES} bytes")
    return tail[begin:end]


def _numbers(line: bytes, columns: int, parts: tuple[int, int] | None) -> tuple[int, int, int]:
    """The number of a line's row, which of its lines this is, and of how many; zeros for the header."""
    try:
        cells = next(csv.reader([line.decode("utf-8")], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise _not_ours("it is no line of CSV") from error
    if len(cells) != columns:
        raise _not_ours(f"it has {len(cells)} cells and not {columns}")
    if cells[0] == "number":
        return 0, 0, 0
    found = [cells[0], *(cells[at] for at in parts or ())]
    if not all(0 < len(cell) <= 19 and cell.isascii() and cell.isdecimal() for cell in found):
        raise _not_ours("its numbers are none")
    number, place, of = (*map(int, found), 1, 1)[:3]
    if not 1 <= place <= of:
        raise _not_ours("its numbers contradict each other")
    return number, place, of


def _not_ours(why: str) -> MalformedError:
    return MalformedError("csv-tail", f"the end of the file was not written by this sink: {why}")
