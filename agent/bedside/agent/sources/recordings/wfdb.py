"""Plays a WFDB record (PhysioNet): signals of one rate and unit, annotations as labels, gaps as gaps.

The library brings pandas and scipy, 90 MB: it lives in the child alone (see `player`).

Source: PhysioNet, WFDB applications guide, header(5), signal(5), annot(5).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import numpy as np

from bedside.agent.kinds import require
from bedside.agent.sources.kind import SourceContext, SourceKind, option
from bedside.agent.sources.recordings.player import FilePlayer
from bedside.agent.sources.recordings.signal_file import (
    FileJob,
    Signal,
    SignalFileOptions,
    check_size,
    chosen,
    class_of,
    recording_of,
)
from bedside.firmware_bridge.recording import Label, Recording


class WfdbOptions(SignalFileOptions, frozen=True, kw_only=True):
    """A WFDB record."""

    record: Annotated[str, option("path of the record, without an ending")]
    annotator: Annotated[str, option("ending of its annotations, with labels")] = "atr"


def read_wfdb(job: FileJob) -> Recording:
    """In the child: read a record.

    Raises:
        ConfigError: `signal-choice`, `signal-unit`.
        MalformedError: `bad-recording`.
        Exception: what the library raises on files that it cannot read.
    """
    import wfdb

    record = job.path
    header = wfdb.rdheader(record, rd_segments=True)
    check_size(header.sig_len or 0, header.n_sig)
    read = wfdb.rdrecord(record, physical=True, smooth_frames=False)
    gains = read.adc_gain or [0.0] * read.n_sig  # segments that differ have none in common
    signals = [
        Signal(name, read.fs * per_frame, unit or "", 1 / gain if gain else 0.0)
        for name, per_frame, unit, gain in zip(read.sig_name, read.samps_per_frame, read.units, gains, strict=True)
    ]
    channels = chosen(signals, job.channels)
    values = np.stack([np.asarray(read.e_p_signal[channel], np.float64) for channel in channels], axis=1)
    per_frame = read.samps_per_frame[channels[0]]
    labels = _labels(record, job, per_frame) if job.labels and job.annotator else []
    return recording_of(values, [signals[channel] for channel in channels], labels, job)


def _labels(record: str, job: FileJob, per_frame: int) -> list[Label]:
    """Annotations are numbered in frames."""
    import wfdb

    read = wfdb.rdann(record, job.annotator)
    named = (
        (int(sample) * per_frame, class_of(symbol, job.labels))
        for sample, symbol in zip(read.sample, read.symbol, strict=True)
    )
    return [Label(sample, sample + 1, name) for sample, name in named if name]


def _build(options: WfdbOptions, context: SourceContext) -> FilePlayer:
    options.check()
    require("wfdb", "bedside[wfdb]")
    path = context.directory / options.record
    job = FileJob(
        "wfdb", str(path), "", options.channels, options.labels, options.unit, options.metric, options.annotator
    )
    return FilePlayer(options, context, job, Path(f"{path}.hea"))


KIND: Final = SourceKind(WfdbOptions, _build)
