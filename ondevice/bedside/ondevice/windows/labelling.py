"""Which label a window has: the one that covers it or, when it lies round a beat, the one that names that beat."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from bedside.core.bundle.manifest import WindowSpec
from bedside.ondevice.windows.cutter import Window
from bedside.ondevice.windows.part import offset_ns

MIN_COVER: Final = 0.9
"""Share of a window that one label must cover."""

BEAT_TOLERANCE_NS: Final = 150_000_000
"""How far a label may be from the R peak that was found: AAMI EC57's match window."""


class Label(Protocol):
    """A class name, or a measured value with its name, over a time of one session."""

    @property
    def start_ns(self) -> int: ...

    @property
    def end_ns(self) -> int: ...

    @property
    def label(self) -> str: ...

    @property
    def value(self) -> float | None:
        """What was measured; None for a class or label alone."""
        ...


class Touching(NamedTuple):
    """A label, and which part of a window it covers: 0 is the window's start, 1 its end."""

    label: Label
    first: float
    last: float


class Labeller:
    """Names windows of one session.

    A sliding window takes the label that covers at least `min_cover` of it. A beat's window takes the one that
    holds its R peak, or else the nearest within 150 ms. Two that are as near and
    disagree name nothing.
    """

    def __init__(self, spec: WindowSpec, labels: Sequence[Label], min_cover: float) -> None:
        self._spec = spec
        self._min_cover = min_cover
        self._labels = sorted(labels, key=lambda label: label.start_ns)
        self._starts = [label.start_ns for label in self._labels]
        self._longest_ns = max((label.end_ns - label.start_ns for label in labels), default=0)

    def label_of(self, window: Window) -> str | None:
        """The label of `window`; None when there is none."""
        least = self._min_cover if self._spec.beat is None else 1.0
        names = {one.label.label for one in self.touching(window) if one.last - one.first >= least}
        return names.pop() if len(names) == 1 else None

    def touching(self, window: Window) -> list[Touching]:
        """The labels that say something about `window`; of a beat's window those next to its R peak, as a whole."""
        if self._spec.beat is None:
            return self._overlapping(window)
        peak_ns = window.start_ns + offset_ns(self._spec.beat.before, self._spec.rate_hz)
        near = self._near(peak_ns - BEAT_TOLERANCE_NS, peak_ns + BEAT_TOLERANCE_NS + 1)
        distances = [(max(label.start_ns - peak_ns, peak_ns - label.end_ns, 0), label) for label in near]
        nearest = min((distance for distance, _ in distances), default=0)
        return [Touching(label, 0.0, 1.0) for distance, label in distances if distance == nearest <= BEAT_TOLERANCE_NS]

    def _overlapping(self, window: Window) -> list[Touching]:
        start_ns, length_ns = window.start_ns, window.end_ns - window.start_ns
        found = []
        for label in self._near(window.start_ns, window.end_ns):
            first_ns, last_ns = max(label.start_ns, start_ns), min(label.end_ns, window.end_ns)
            if first_ns < last_ns:
                found.append(Touching(label, (first_ns - start_ns) / length_ns, (last_ns - start_ns) / length_ns))
        return found

    def _near(self, start_ns: int, end_ns: int) -> Sequence[Label]:
        """Every label that touches the time, and perhaps some that do not."""
        first = bisect_left(self._starts, start_ns - self._longest_ns)
        return self._labels[first : bisect_left(self._starts, end_ns)]
