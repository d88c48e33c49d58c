"""The samples of a run that a window may still need, by their number in the run."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
_FIRST_ROWS: Final = 256


class Kept:
    """A row of samples that grows at its end and is forgotten at its beginning.

    Attributes:
        end: number of the sample that comes next.
    """

    def __init__(self, channels: int, first: int) -> None:
        self._rows = np.empty((_FIRST_ROWS, channels), np.float64)
        self._first = first  # number of the sample in row 0
        self._used = 0
        self.end = first

    def append(self, samples: Float64) -> None:
        """Add (n, channels)."""
        row = self.end - self._first
        if row + len(samples) > len(self._rows):
            row = self._make_room(len(samples))
        self._rows[row : row + len(samples)] = samples
        self.end += len(samples)

    def between(self, first: int, last: int) -> Float64:
        """A view of the samples numbered `first` to `last` (exclusive)."""
        return self._rows[first - self._first : last - self._first]

    def forget(self, before: int) -> None:
        """No sample before this one will be asked for again."""
        self._used = max(self._used, min(before, self.end) - self._first)

    def _make_room(self, more: int) -> int:
        """Move what is needed to the front, into twice the space where that is not enough; returns the next row."""
        needed = self._rows[self._used : self.end - self._first]
        rows = self._rows
        if 2 * (len(needed) + more) > len(rows):
            rows = np.empty((2 * (len(needed) + more), rows.shape[1]), np.float64)
        rows[: len(needed)] = needed  # numpy copes with overlap
        self._rows = rows
        self._first += self._used
        self._used = 0
        return len(needed)
