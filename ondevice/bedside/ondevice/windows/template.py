"""What is unusual about a beat: how it differs from the beats before it.

Invariant: the mean is summed anew for each beat, from the oldest of its beats on, so that a window that is cut again
from the middle of a run has the same bits once as many beats lie before it.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


class BeatTemplate:
    """The last beats of one run."""

    def __init__(self, beats: int) -> None:
        """Follow the mean of at most `beats` beats."""
        self._before: deque[Float64] = deque(maxlen=beats)

    def deviation(self, beat: Float64) -> Float64:
        """The next beat (length, channels) less the mean of those before it; zero for a run's first."""
        if self._before:
            mean = np.zeros_like(beat)
            for one in self._before:
                mean += one
            mean /= len(self._before)
        else:
            mean = beat
        self._before.append(beat)
        return beat - mean
