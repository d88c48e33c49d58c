"""Plays an EDF, EDF+ or BDF file: signals of one rate and unit, annotations as labels, discontinuities as gaps.

pyedflib refuses discontinuous files. It is shown a private copy that does not say so, in which the annotations are a
signal like others; they are read here, and say when each data record begins.

Source: Kemp and others 1992 (EDF); Kemp and Olivan 2003 (EDF+); BioSemi (BDF).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import numpy.typing as npt

from bedside.agent.formats.edf_annotations import Tal, read_tals
from bedside.agent.kinds import require
from bedside.agent.sources.kind import SourceContext, SourceKind, option
from bedside.agent.sources.recordings.player import FilePlayer
from bedside.agent.sources.recordings.signal_file import (
    FileJob,
    Physical,
    Signal,
    SignalFileOptions,
    check_size,
    chosen,
    class_of,
    recording_of,
)
from bedside.core.errors import MalformedError
from bedside.firmware_bridge.recording import Label, Recording

if TYPE_CHECKING:
    from pyedflib import EdfReader

_FORM_AT: Final = 192
"""Offset of the 44 bytes that say EDF+C or EDF+D."""
_PLUS: Final = (b"EDF+", b"BDF+")
_ANNOTATIONS: Final = ("EDF Annotations", "BDF Annotations")


class EdfOptions(SignalFileOptions, frozen=True, kw_only=True):
    """An EDF or BDF file."""

    path: Annotated[str, option("the file")]


def read_edf(job: FileJob) -> Recording:
    """In the child: read a file.

    Raises:
        ConfigError: `signal-choice`, `signal-unit`.
        MalformedError: `bad-edf`, `bad-recording`.
        Exception: what the library raises on files that it cannot read.
    """
    import pyedflib

    copy = Path(f"{job.out}.edf")
    try:
        with pyedflib.EdfReader(str(_plain(Path(job.path), copy))) as file:
            return _read(file, job)
    finally:
        copy.unlink(missing_ok=True)


def _plain(path: Path, copy: Path) -> Path:
    """The file, or a copy of it that does not say which kind of EDF+ it is."""
    with path.open("rb") as file:
        form = file.read(_FORM_AT + 4)[_FORM_AT:]
    if form not in _PLUS:
        return path
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file:
        file.seek(_FORM_AT)
        file.write(b" " * 5)
    return copy


def _read(file: EdfReader, job: FileJob) -> Recording:
    labels = file.getSignalLabels()
    of_signals = [index for index, label in enumerate(labels) if label not in _ANNOTATIONS]
    signals = [_signal(file, index, labels[index]) for index in of_signals]
    picked = [of_signals[index] for index in chosen(signals, job.channels)]
    mine = [signals[of_signals.index(index)] for index in picked]
    samples, rate_hz = int(file.getNSamples()[picked[0]]), mine[0].rate_hz
    check_size(samples, len(picked))
    values = np.stack([file.readSignal(index) for index in picked], axis=1)
    tals = [_tals(file, index) for index, label in enumerate(labels) if label in _ANNOTATIONS]
    if not tals:
        return recording_of(values, mine, (), job)
    begins_s = [record[0].onset_s if record else -1.0 for record in tals[0]]
    values = _spread(values, [round((begin_s - begins_s[0]) * rate_hz) for begin_s in begins_s])
    found = [
        Label(start, max(start + 1, start + round(tal.duration_s * rate_hz)), name)
        for tal in (tal for signal in tals for record in signal for tal in record)
        for name in (class_of(text, job.labels) for text in tal.texts)
        for start in (round((tal.onset_s - begins_s[0]) * rate_hz),)
        if name
    ]
    return recording_of(values, mine, found, job)


def _signal(file: EdfReader, index: int, label: str) -> Signal:
    digital = file.getDigitalMaximum(index) - file.getDigitalMinimum(index)
    physical = file.getPhysicalMaximum(index) - file.getPhysicalMinimum(index)
    step = float(physical / digital) if digital else 0.0
    return Signal(label, float(file.getSampleFrequency(index)), file.getPhysicalDimension(index), step)


def _tals(file: EdfReader, index: int) -> list[list[Tal]]:
    """The annotations of every data record: two bytes a sample in EDF, three in BDF."""
    samples: npt.NDArray[np.int32] = file.readSignal(index, digital=True)
    width = 3 if file.getSignalLabels()[index].startswith("BDF") else 2
    data = samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    records = max(1, int(file.datarecords_in_file))
    size = len(data) // records
    return [read_tals(data[record * size : (record + 1) * size]) for record in range(records)]


def _spread(values: Physical, begins: Sequence[int]) -> Physical:
    """Put every data record where it begins, and NaN between them.

    Raises:
        MalformedError: `bad-edf`: records overlap; `bad-recording`: they reach too far.
    """
    size = len(values) // max(1, len(begins))
    if any(later - earlier < size for earlier, later in pairwise(begins)):
        raise MalformedError("bad-edf", "its data records overlap, or do not say when they begin")
    if not begins or begins[-1] == size * (len(begins) - 1):
        return values
    check_size(begins[-1] + size, values.shape[1])
    spread = np.full((begins[-1] + size, values.shape[1]), np.nan)
    for record, begin in enumerate(begins):
        spread[begin : begin + size] = values[record * size : (record + 1) * size]
    return spread


def _build(options: EdfOptions, context: SourceContext) -> FilePlayer:
    options.check()
    require("pyedflib", "bedside[edf]")
    path = context.directory / options.path
    job = FileJob("edf", str(path), "", options.channels, options.labels, options.unit, options.metric)
    return FilePlayer(options, context, job, path)


KIND: Final = SourceKind(EdfOptions, _build)
