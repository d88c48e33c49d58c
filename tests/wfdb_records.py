"""Reads MIT-BIH records: WFDB format 212 signals and their beat annotations, as far as tests and benchmarks need.

Source: PhysioNet, WFDB applications guide: signal(5), header(5), annot(5); AAMI EC57 for the classes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

RECORDS = ("101", "106", "108", "109", "114", "119", "201", "203", "207", "208", "209", "223")

AAMI = {
    **dict.fromkeys("NLRejn", "N"),
    **dict.fromkeys("AaJS", "S"),
    **dict.fromkeys("VEr", "V"),
    "F": "F",
    **dict.fromkeys("/fQ", "Q"),
}
"""Class of a beat's code, by AAMI EC57 table 3."""

_CODES = dict(enumerate(' NLRaVFJASEj/Q~ | sT*D"=pB^t+u?![]en@xf()r'))
_SKIP, _NUM, _SUB, _CHN, _AUX = 59, 60, 61, 62, 63


@dataclass(frozen=True)
class WfdbRecord:
    """One record.

    Attributes:
        values: (samples, leads) int16, as digitised.
        zero: baseline of each lead, in units of `values`.
        per_mv: units of `values` per millivolt.
        beats: sample indexes of the annotated beats.
        symbols: code of each beat.
        flutter: (first, end) sample indexes of ventricular flutter, which EC57 leaves out.
    """

    name: str
    rate_hz: float
    values: npt.NDArray[np.int16]
    zero: tuple[int, ...]
    per_mv: float
    leads: tuple[str, ...]
    beats: npt.NDArray[np.int64]
    symbols: tuple[str, ...]
    flutter: tuple[tuple[int, int], ...]


def data_folder() -> Path | None:
    """Where the real sets lie; None where they are not."""
    root = Path(os.environ.get("BEDSIDE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    folder = root / "mitdb_wfdb"
    return folder if folder.is_dir() else None


def read_record(folder: Path, name: str) -> WfdbRecord:
    """Read `name`.hea, .dat and .atr."""
    lines = [line for line in (folder / f"{name}.hea").read_text().splitlines() if not line.startswith("#")]
    _, leads, rate, samples = lines[0].split()[:4]
    fields = [line.split() for line in lines[1 : 1 + int(leads)]]
    assert all(field[1] == "212" for field in fields)
    raw = np.frombuffer((folder / f"{name}.dat").read_bytes(), np.uint8).reshape(-1, 3).astype(np.int16)
    values = np.stack([raw[:, 0] | (raw[:, 1] & 0x0F) << 8, raw[:, 2] | (raw[:, 1] & 0xF0) << 4], axis=1)
    values = np.where(values > 2047, values - 4096, values).astype(np.int16)[: int(samples)]
    for lead, field in enumerate(fields):
        assert int(values[:, lead].astype(np.int64).sum()) & 0xFFFF == int(field[6]) & 0xFFFF, "the checksum differs"
    times, codes = _annotations((folder / f"{name}.atr").read_bytes())
    is_beat = [code in AAMI for code in codes]
    starts = [time for time, code in zip(times, codes, strict=True) if code == "["]
    ends = [time for time, code in zip(times, codes, strict=True) if code == "]"]
    return WfdbRecord(
        name,
        float(rate),
        values,
        tuple(int(field[4]) for field in fields),
        float(fields[0][2].split("(")[0].split("/")[0]),
        tuple(field[-1] for field in fields),
        np.array([time for time, beat in zip(times, is_beat, strict=True) if beat], np.int64),
        tuple(code for code, beat in zip(codes, is_beat, strict=True) if beat),
        tuple(zip(starts, [*ends, len(values)][: len(starts)], strict=True)),
    )


def _annotations(data: bytes) -> tuple[list[int], list[str]]:
    """Times and codes, up to the end mark."""
    times, codes, time, at = [], [], 0, 0
    while at + 1 < len(data):
        word = data[at] | data[at + 1] << 8
        kind, count = word >> 10, word & 0x3FF
        at += 2
        if word == 0:
            break
        if kind == _SKIP:
            time += (data[at] | data[at + 1] << 8) << 16 | data[at + 2] | data[at + 3] << 8
            at += 4
        elif kind == _AUX:
            at += count + (count & 1)
        elif kind not in (_NUM, _SUB, _CHN):
            time += count
            times.append(time)
            codes.append(_CODES.get(kind, "?"))
    return times, codes
