"""MIT-BIH records as recordings that an agent replays, and their split by patient."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bedside.firmware_bridge.recording import Label, Recording  # noqa: E402
from wfdb_records import AAMI, RECORDS, WfdbRecord, data_folder, read_record  # noqa: E402 - lies beside the tests

FOLDS = tuple(RECORDS[first::3] for first in range(3))
"""Each record is tested by a model that was trained on the two other folds: other patients."""

__all__ = ["FOLDS", "RECORDS", "WfdbRecord", "data_folder", "read_record", "recording_of"]


def recording_of(record: WfdbRecord) -> Recording:
    """The record in millivolt, each beat labelled by its AAMI class at its own sample.

    Lead MLII comes first, as in eleven of the twelve files, so that the same lead of every patient goes into the model.
    """
    first = record.leads.index("MLII")
    values = np.ascontiguousarray(np.roll(record.values, -first, axis=1))
    labels = tuple(
        Label(int(sample), int(sample) + 1, AAMI[symbol])
        for sample, symbol in zip(record.beats, record.symbols, strict=True)
    )
    return Recording(values, record.rate_hz, labels, unit="mV", metric="MDC_ECG_ELEC_POTL", scale=1.0 / record.per_mv)
