"""A recorded signal in one `.npz` file: what replay and the virtual board play.

Keys: `values` (samples, channels) int16, int32 or float32; `rate_hz`; `label_names`, `label_start`, `label_end`
(one row per label, sample indexes, end exclusive); `session_start` (sample indexes at which another session begins,
first 0); optional `unit`, `metric`, `scale`, and `gap_start`, `gap_end` (stretches without signal). Pickled objects are
never loaded.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.core.arrays import HEAD_BYTES, announced_bytes
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.samples import Samples, form_fault

MAX_RECORDING_BYTES: Final = 1 << 30
"""Bytes of the values of one recording: they are held in memory."""
MAX_LABELS: Final = 200_000
"""Of one recording: twice the beats of a day."""


@dataclass(frozen=True, slots=True)
class Label:
    """A class name over samples `start` to `end` (exclusive)."""

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded stream.

    Attributes:
        values: shape (samples, channels); int16, int32 or float32.
        rate_hz: samples per second.
        labels: in the order of their start.
        session_starts: ascending sample indexes, first 0; a session ends where the next begins.
        unit: UCUM code of a value times `scale`.
        metric: MDC reference id; empty when unknown.
        scale: physical value = value times `scale`.
        gaps: ascending stretches of samples, end exclusive, that were not recorded: what `values` has there is no
            signal.
    """

    values: Samples
    rate_hz: float
    labels: tuple[Label, ...] = ()
    session_starts: tuple[int, ...] = (0,)
    unit: str = "1"
    metric: str = ""
    scale: float = 1.0
    gaps: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        fault = form_fault(self.values, self.rate_hz, self.unit, self.metric, self.scale)
        if fault or not self.values.size:
            raise MalformedError("bad-recording", fault or "a recording without samples is none")
        if not all(label.name.isprintable() for label in self.labels):
            raise MalformedError("bad-recording", "a label's name is visible text")
        starts = self.session_starts
        if starts[:1] != (0,) or any(b <= a for a, b in pairwise(starts)):
            raise MalformedError("bad-recording", "session starts ascend from sample 0")
        if len(self.labels) > MAX_LABELS:
            raise MalformedError("bad-recording", f"{len(self.labels)} labels are more than {MAX_LABELS}")
        if starts[-1] >= len(self.values) or any(not 0 <= x.start < x.end <= len(self.values) for x in self.labels):
            raise MalformedError("bad-recording", "a label or session lies outside the values")
        borders = [border for gap in self.gaps for border in gap]
        if any(b <= a for a, b in pairwise(borders)) or not all(0 <= border <= len(self.values) for border in borders):
            raise MalformedError("bad-recording", "gaps ascend apart from each other inside the values")

    @property
    def sessions(self) -> list[tuple[int, int]]:
        """First sample and end (exclusive) of every session."""
        return list(zip(self.session_starts, (*self.session_starts[1:], len(self.values)), strict=True))

    def pieces(self, samples: int) -> list[tuple[int, int]]:
        """First sample and end (exclusive) of everything that was recorded, in pieces of so many samples at most."""
        starts = (0, *(end for _, end in self.gaps))
        ends = (*(start for start, _ in self.gaps), len(self.values))
        return [
            (first, min(first + samples, end))
            for start, end in zip(starts, ends, strict=True)
            for first in range(start, end, samples)
        ]


Arrays = dict[str, npt.NDArray[Any]]

_DAMAGE: Final = (
    *(ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)
"""What zipfile, zlib and numpy raise on an archive with changed bytes."""


def read_recording(path: Path) -> Recording:
    """Read the recording at `path`.

    Raises:
        ConfigError: `recording-missing`.
        MalformedError: `bad-recording`.
    """
    try:
        return _from_arrays(read_arrays(path))
    except MalformedError as error:
        raise _no_recording(path, error.sentence) from error
    except _DAMAGE as error:
        raise _no_recording(path, str(error)) from error


def read_arrays(path: Path) -> Arrays:
    """Read every array of an `.npz` file, none of which is larger than it announces, and no pickle.

    Raises:
        ConfigError: `recording-missing`.
        MalformedError: `bad-npz`.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO waits for its other end
            raise _no_arrays(path, "it is not a regular file")
        if not zipfile.is_zipfile(path):  # numpy would speak of pickles
            raise _no_arrays(path, "it is not an .npz file")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            entries = archive.zip.infolist()
            if sum(entry.file_size for entry in entries) > MAX_RECORDING_BYTES:
                raise _no_arrays(path, f"it exceeds {MAX_RECORDING_BYTES} bytes")
            for entry in entries:
                _check_size(archive.zip, entry)
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise ConfigError(
            "recording-missing", f"{path} cannot be read: {error.strerror or error}", remedy="check the path"
        ) from error
    except _DAMAGE as error:
        raise _no_arrays(path, str(error)) from error


def _check_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Compare what an array announces with what is there: numpy allocates first and reads then.

    Raises:
        ValueError: it announces more or less, or is no plain array.
    """
    with archive.open(entry) as member:
        try:
            announced = announced_bytes(member.read(HEAD_BYTES))
        except MalformedError as error:
            raise ValueError(error.sentence) from error
    if announced != entry.file_size:
        raise ValueError(f"{entry.filename} announces another size than it has")


def _no_arrays(path: Path, why: str) -> MalformedError:
    return MalformedError("bad-npz", f"{path.name} cannot be read: {why}", remedy="write it with numpy.savez")


def _no_recording(path: Path, why: str) -> MalformedError:
    remedy = "name an .npz file with values, rate_hz, labels and session starts"
    return MalformedError("bad-recording", f"{path.name} is not a recording: {why}", remedy=remedy)


def write_recording(path: Path, recording: Recording) -> None:
    """Write `recording` to `path` in the form that `read_recording` reads."""
    np.savez_compressed(
        path,
        values=recording.values,
        rate_hz=np.float64(recording.rate_hz),
        label_names=np.array([label.name for label in recording.labels], dtype=np.str_),
        label_start=np.array([label.start for label in recording.labels], dtype=np.int64),
        label_end=np.array([label.end for label in recording.labels], dtype=np.int64),
        session_start=np.array(recording.session_starts, dtype=np.int64),
        unit=np.array(recording.unit),
        metric=np.array(recording.metric),
        scale=np.float64(recording.scale),
        gap_start=np.array([start for start, _ in recording.gaps], dtype=np.int64),
        gap_end=np.array([end for _, end in recording.gaps], dtype=np.int64),
    )


def _from_arrays(arrays: Arrays) -> Recording:
    labels: list[Label] = []
    if "label_names" in arrays:
        rows = zip(
            _column(arrays, "label_start"), _column(arrays, "label_end"), _words(arrays, "label_names"), strict=True
        )
        labels = [Label(start, end, name) for start, end, name in rows]
    return Recording(
        values=np.ascontiguousarray(arrays["values"]),
        rate_hz=_number(arrays, "rate_hz"),
        labels=tuple(sorted(labels, key=lambda label: label.start)),
        session_starts=tuple(_column(arrays, "session_start")) if "session_start" in arrays else (0,),
        unit=_words(arrays, "unit")[0] if "unit" in arrays else "1",
        metric=_words(arrays, "metric")[0] if "metric" in arrays else "",
        scale=_number(arrays, "scale") if "scale" in arrays else 1.0,
        gaps=tuple(zip(_column(arrays, "gap_start"), _column(arrays, "gap_end"), strict=True))
        if "gap_start" in arrays
        else (),
    )


def _column(arrays: Arrays, name: str) -> list[int]:
    if arrays[name].dtype.kind not in "iu" or arrays[name].ndim != 1:
        raise ValueError(f"{name} is not a row of whole numbers")
    return [int(one) for one in arrays[name]]


def _number(arrays: Arrays, name: str) -> float:
    if arrays[name].dtype.kind not in "iuf" or arrays[name].size != 1:
        raise ValueError(f"{name} is not one number")
    return float(arrays[name].item())


def _words(arrays: Arrays, name: str) -> list[str]:
    if arrays[name].dtype.kind != "U" or arrays[name].ndim > 1:
        raise ValueError(f"{name} is not text")
    try:
        return [str(word) for word in arrays[name].ravel()]
    except SystemError as error:  # what numpy's text holds need not be characters
        raise ValueError(f"{name} is not text") from error
