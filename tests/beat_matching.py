"""Matches detected beats with annotated ones, as AAMI EC57 does: each at most once, within 150 ms.

Episodes of ventricular flutter are left out, annotated and detected beats alike, as EC57 allows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wfdb_records import WfdbRecord

TOLERANCE_S = 0.15

Times = npt.NDArray[np.float64]


class BeatScores(NamedTuple):
    """Of one record, or of several together."""

    found: int
    missed: int
    extra: int

    @property
    def sensitivity(self) -> float:
        """Part of the annotated beats that were found."""
        return self.found / max(1, self.found + self.missed)

    @property
    def precision(self) -> float:
        """Positive predictivity: part of the detections that are beats."""
        return self.found / max(1, self.found + self.extra)


def match_beats(annotated_s: Times, detected_s: Times) -> tuple[npt.NDArray[np.int64], int]:
    """Pair beats at ascending times.

    Returns:
        For each annotated beat the index of its detection, or -1; and how many detections have no annotation.
    """
    pairs = np.full(len(annotated_s), -1, np.int64)
    extra = at = 0
    for number, time_s in enumerate(detected_s):
        while at < len(annotated_s) and annotated_s[at] < time_s - TOLERANCE_S:
            at += 1
        near = [i for i in range(at, min(at + 3, len(annotated_s))) if abs(annotated_s[i] - time_s) <= TOLERANCE_S]
        free = [i for i in near if pairs[i] < 0]
        if free:
            pairs[min(free, key=lambda i: abs(annotated_s[i] - time_s))] = number
        else:
            extra += 1
    return pairs, extra


def outside_flutter(record: WfdbRecord, times_s: Times) -> npt.NDArray[np.bool_]:
    """Which of `times_s` count."""
    outside = np.ones(len(times_s), np.bool_)
    for first, end in record.flutter:
        before, after = first / record.rate_hz - TOLERANCE_S, end / record.rate_hz + TOLERANCE_S
        outside &= (times_s < before) | (times_s > after)
    return outside


def beat_scores(record: WfdbRecord, detected_s: Times) -> BeatScores:
    """Score the detections of a whole record, learning phase included."""
    annotated_s = record.beats / record.rate_hz
    pairs, extra = match_beats(
        annotated_s[outside_flutter(record, annotated_s)], detected_s[outside_flutter(record, detected_s)]
    )
    return BeatScores(int((pairs >= 0).sum()), int((pairs < 0).sum()), extra)
