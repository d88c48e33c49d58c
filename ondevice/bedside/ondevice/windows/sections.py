"""Second-order sections over a stream, sample by sample.

Invariant: the output depends on the samples alone, bit for bit, and not on the blocks they came in: every value is
computed in the same order of the same operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bedside.core.signal.butterworth import Section

Float64 = npt.NDArray[np.float64]


class SectionFilter:
    """A cascade for every channel. It begins as if the first sample had stood for ever, so that no step rings."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self._sections = tuple(sections)
        self._states: list[list[list[float]]] | None = None

    def push(self, samples: Float64) -> Float64:
        """Filter the next (samples, channels)."""
        if not len(samples):
            return samples
        if self._states is None:
            self._states = [_standing(self._sections, float(first)) for first in samples[0]]
        filtered = np.empty_like(samples)
        for channel, states in enumerate(self._states):
            values = samples[:, channel].tolist()
            for section, state in zip(self._sections, states, strict=True):
                values = _run(section, state, values)
            filtered[:, channel] = values
        return filtered


def _run(section: Section, state: list[float], values: list[float]) -> list[float]:
    """One section over one channel, in the transposed direct form II; `state` goes on."""
    b0, b1, b2, a1, a2 = section
    first, second = state
    output: list[float] = []
    append = output.append
    for value in values:
        y = b0 * value + first
        first = b1 * value - a1 * y + second
        second = b2 * value - a2 * y
        append(y)
    state[:] = first, second
    return output


def _standing(sections: Sequence[Section], level: float) -> list[list[float]]:
    """The state of every section after an endless input of `level`."""
    states = []
    for b0, b1, b2, a1, a2 in sections:
        output = level * (b0 + b1 + b2) / (1 + a1 + a2)
        states.append([output - b0 * level, b2 * level - a2 * output])
        level = output
    return states
