"""Metrics that are sums: a device turns its windows into counts, the coordinator turns summed counts into figures.

No device's figure exists anywhere but on the device. Noise may leave a summed count a little below zero; the
coordinator's halves read that as zero. A figure without any window behind it is NaN, never 0 or 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

CountArray = npt.NDArray[np.int64]
Labels = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

CONFIDENCE_PARTS: Final = 1_000
"""A confidence is summed in thousandths, so that it fits a ring of integers."""
DEFAULT_BINS: Final = 10
"""Equal-width reliability bins."""
BIN_COUNT: Final = 0
BIN_CORRECT: Final = 1
BIN_CONFIDENCE: Final = 2
"""Rows of a reliability table."""


def spread_windows(available: int, most: int) -> CountArray:
    """Positions of at most `most` of `available` windows, evenly spread, so that a device keeps under the cap."""
    if available <= most:
        return np.arange(available, dtype=np.int64)
    return np.arange(most, dtype=np.int64) * available // most


def count_correct(truth: Labels, predicted: Labels) -> CountArray:
    """Device half of accuracy: int64 (correct, total); cap: windows per device."""
    _check_same_length(truth, predicted)
    return np.array([np.count_nonzero(truth == predicted), truth.size], np.int64)


def accuracy(correct_total: CountArray) -> float:
    """Coordinator half of accuracy, 0..1."""
    correct, total = _not_negative(correct_total)
    return float(correct / total) if total else float("nan")


def count_confusion(truth: Labels, predicted: Labels, classes: int) -> CountArray:
    """Device half of the confusion matrix: int64, shape (classes, classes), truth by prediction.

    Raises:
        ValueError: a label outside 0..classes - 1.
    """
    _check_same_length(truth, predicted)
    for labels in (truth, predicted):
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise ValueError(f"a label is not within 0 and {classes - 1}")
    cells = truth.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def sensitivity(confusion: CountArray) -> npt.NDArray[np.float64]:
    """True positive rate of every class, shape (classes,); NaN for a class without windows."""
    counts = _not_negative(confusion)
    return _ratio(np.diagonal(counts), counts.sum(axis=1))


def macro_f1(confusion: CountArray) -> float:
    """Unweighted mean of the F1 of every class that occurs in the truth or in the predictions."""
    counts = _not_negative(confusion)
    f1 = _ratio(2 * np.diagonal(counts), counts.sum(axis=0) + counts.sum(axis=1))
    present = f1[~np.isnan(f1)]
    return float(present.mean()) if present.size else float("nan")


def count_reliability(confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = DEFAULT_BINS) -> CountArray:
    """Device half of calibration: int64, shape (3, bins): windows, correct windows, thousandths of confidence.

    Bin b holds confidences in [b / bins, (b + 1) / bins), the last one also 1. Cap per word: `CONFIDENCE_PARTS`
    times the windows per device.

    Raises:
        ValueError: a confidence outside 0..1, or lengths that differ.
    """
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise ValueError("confidence and correctness differ in length")
    if confidence.size and not (confidence.min() >= 0 and confidence.max() <= 1):
        raise ValueError("a confidence is not within 0 and 1")
    place = np.minimum((confidence.astype(np.float64) * bins).astype(np.int64), bins - 1)
    parts = np.rint(confidence.astype(np.float64) * CONFIDENCE_PARTS).astype(np.int64)
    table = np.zeros((3, bins), np.int64)
    np.add.at(table[BIN_COUNT], place, 1)
    np.add.at(table[BIN_CORRECT], place, correct.astype(np.int64))
    np.add.at(table[BIN_CONFIDENCE], place, parts)
    return table


def expected_calibration_error(table: CountArray) -> float:
    """Coordinator half of calibration: mean gap between confidence and accuracy, weighted by the bins' windows.

    Source: Naeini et al., AAAI 2015; Guo et al., ICML 2017, equation 3.
    """
    counts = _not_negative(table)
    total = int(counts[BIN_COUNT].sum())
    if not total:
        return float("nan")
    occupied = counts[BIN_COUNT] > 0
    gaps = np.abs(counts[BIN_CORRECT] - counts[BIN_CONFIDENCE] / CONFIDENCE_PARTS)
    return float(gaps[occupied].sum() / total)


def _check_same_length(truth: Labels, predicted: Labels) -> None:
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError("truth and prediction differ in length")


def _not_negative(counts: CountArray) -> CountArray:
    return np.maximum(counts, 0)


def _ratio(part: CountArray, whole: CountArray) -> npt.NDArray[np.float64]:
    out = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
