"""The demo's real data: ten people with a smartwatch doing seven shoulder exercises, six axes at 50 Hz.

The recordings come with the package seglearn 1.2.5. It is never imported (it wants pandas): its file is found beside
it, and because the file is a pickle, nothing of it is interpreted before its SHA-256 matches the pinned one.

Source: Burns et al. 2018, "Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a
smartwatch", Physiological Measurement 39.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.errors import ConfigError, TrustError
from bedside.firmware_bridge.recording import Label, Recording

WATCH_SHA256: Final = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
RATE_HZ: Final = 50.0
EXERCISES: Final = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
"""Names of the classes, in the file's own order."""

EXERCISE_WORDS: Final = {
    "PEN": "pendulum",
    "ABD": "abduction",
    "FEL": "forward elevation",
    "IR": "internal rotation",
    "ER": "external rotation",
    "TRAP": "trapezius extension",
    "ROW": "upright row",
}
_PACKAGE: Final = "seglearn"
_FILE: Final = Path("data") / "watch_dataset.npy"


@dataclass(frozen=True)
class Wearer:
    """One person's recordings, joined into one stream.

    Attributes:
        number: 1 to 10, as in the source.
        recording: float32 of shape (samples, 6): acceleration in g, then angular velocity in rad/s. Every exercise is
            a session of its own and carries one label.
    """

    number: int
    recording: Recording


def find_watch_file() -> Path:
    """Return where the installed package keeps its recordings, without importing the package.

    Raises:
        ConfigError: `demo-data-missing`.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [Path(folder) / _FILE for folder in folders if (Path(folder) / _FILE).is_file()]
    if not found:
        raise ConfigError(
            "demo-data-missing",
            "the smartwatch recordings are not installed",
            remedy="run `pip install --no-deps seglearn==1.2.5`, or simply `make demo`",
        )
    return found[0]


def read_wearers(path: Path, sha256: str = WATCH_SHA256) -> list[Wearer]:
    """Read all wearers' recordings, ordered by their number.

    Args:
        path: the recordings' file.
        sha256: what its bytes must hash to, hexadecimal. They are hashed before anything of them is interpreted.

    Raises:
        TrustError: `demo-data-changed`.
    """
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise TrustError(
            "demo-data-changed",
            f"{path.name} has SHA-256 {found[:16]}..., not {sha256[:16]}...; it was not opened",
            remedy="reinstall the recordings: pip install --no-deps --force-reinstall seglearn==1.2.5",
        )
    content = np.load(io.BytesIO(data), allow_pickle=True).item()
    series: list[npt.NDArray[np.float64]] = content["X"]
    exercise: npt.NDArray[np.int64] = content["y"]
    subject: npt.NDArray[np.int64] = content["subject"]
    return [
        Wearer(number, _join([(series[at], EXERCISES[exercise[at]]) for at in np.flatnonzero(subject == number)]))
        for number in sorted({int(one) for one in subject})
    ]


def _join(parts: list[tuple[npt.NDArray[np.float64], str]]) -> Recording:
    lengths = [len(values) for values, _ in parts]
    ends = np.cumsum(lengths)
    starts = [int(end) - length for end, length in zip(ends, lengths, strict=True)]
    labels = [
        Label(start, start + length, name) for start, length, (_, name) in zip(starts, lengths, parts, strict=True)
    ]
    values = np.concatenate([values for values, _ in parts]).astype(np.float32)
    return Recording(values, RATE_HZ, tuple(labels), tuple(starts))
