"""A recorded signal in one `.npz` file: what replay and the virtual board play.

Keys: `values` (samples, channels) int16, int32 or float32; `rate_hz`; `label_names`, `label_start`, `label_end`
(one row per label, sample indexes, end exclusive); `session_start` (sample indexes at which another session begins,
first 0); optional `unit`, `metric`, `scale`. Pickled objects are never loaded.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.errors import ConfigError, MalformedError
from bedside.core.samples import Samples

MAX_RECORDING_BYTES: Final = 1 << 30
"""Bytes of the values of one recording: they are held in memory."""

_DTYPES: Final = frozenset({"int16", "int32", "float32"})


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
    """

    values: Samples
    rate_hz: float
    labels: tuple[Label, ...] = ()
    session_starts: tuple[int, ...] = (0,)
    unit: str = "1"
    metric: str = ""
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not self.values.size or self.values.dtype.name not in _DTYPES:
            raise MalformedError("bad-recording", "values are int16, int32 or float32 of shape (samples, channels)")
        if not np.isfinite(self.rate_hz) or self.rate_hz <= 0:
            raise MalformedError("bad-recording", f"a rate of {self.rate_hz} Hz is impossible")
        starts = self.session_starts
        if starts[:1] != (0,) or any(b <= a for a, b in pairwise(starts)):
            raise MalformedError("bad-recording", "session starts ascend from sample 0")
        if starts[-1] >= len(self.values) or any(not 0 <= x.start < x.end <= len(self.values) for x in self.labels):
            raise MalformedError("bad-recording", "a label or session lies outside the values")

    @property
    def sessions(self) -> list[tuple[int, int]]:
        """First sample and end (exclusive) of every session."""
        return list(zip(self.session_starts, (*self.session_starts[1:], len(self.values)), strict=True))


_DAMAGE: Final = (
    *(ValueError, KeyError, TypeError, AttributeError, EOFError, OverflowError, MemoryError),
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
        if not zipfile.is_zipfile(path):  # numpy would speak of pickles
            path.stat()
            raise _no_recording(path, "it is not an .npz file")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if archive.zip.getinfo("values.npy").file_size > MAX_RECORDING_BYTES:
                raise MalformedError("bad-recording", f"{path.name} exceeds {MAX_RECORDING_BYTES} bytes")
            return _from_arrays({name: archive[name] for name in archive.files})
    except OSError as error:
        raise ConfigError(
            "recording-missing", f"{path} cannot be read: {error.strerror or error}", remedy="check the path"
        ) from error
    except _DAMAGE as error:
        objects = "pickle" in str(error)  # numpy's words for them would frighten, and tempt
        raise _no_recording(path, "it holds more than numbers and text" if objects else str(error)) from error


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
    )


def _from_arrays(arrays: dict[str, npt.NDArray[np.generic]]) -> Recording:
    labels: list[Label] = []
    if "label_names" in arrays:
        rows = zip(arrays["label_start"], arrays["label_end"], arrays["label_names"], strict=True)
        labels = [Label(int(start), int(end), str(name)) for start, end, name in rows]
    return Recording(
        values=np.ascontiguousarray(arrays["values"]),
        rate_hz=float(arrays["rate_hz"][()]),
        labels=tuple(sorted(labels, key=lambda label: label.start)),
        session_starts=tuple(int(start) for start in arrays["session_start"]) if "session_start" in arrays else (0,),
        unit=str(arrays.get("unit", "1")),
        metric=str(arrays.get("metric", "")),
        scale=float(arrays["scale"][()]) if "scale" in arrays else 1.0,
    )
