"""mitdb_beats: 50,980 beats of 22 patients in AAMI classes; every patient is judged by a model that never saw it.

Five folds of patients. A beat is what a device cuts round an R peak: 128 samples at 125 Hz, the interval before it, and
that interval's ratio to the mean of the ten before. All of it is standardised by the patient's own moments, which need
no labels. Beats of class Q (eight of them) are not trained on; no model here has that class.

`template` adds a channel that no device makes today: the beat less the mean of the patient's hundred beats before, and
the interval's ratio to the one before. It is measured beside the model of a device, as what such stages would bring.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bedside.authoring.simulation.settings import Settings
from bedside.ondevice.training.examples import Windows

from .compared import ONLY_8_BIT, Rows, alone_elsewhere, federated, hurried, pooled
from .metrics import beats
from .study import Held, Study, build

FOLDS: Final = 5
LABELS: Final = ("N", "S", "V", "F")
LENGTH: Final = 128
_FIRST_SAMPLE: Final = 6
"""Of the set's 187 samples; the R peak, its sample 62, comes to 56 as in the shipped recipe."""

_FIRST_RR_S: Final = 0.8
_BEFORE: Final = 10
_TEMPLATE_BEATS: Final = 100
_RR_SPAN: Final = 1.5

SETTINGS: Final = Settings(rounds=15, steps=15, final_learning_rate=0.001, weighting="uniform", clip=3.0)


def recipe(channels: int) -> dict[str, object]:
    """The model on beats of so many channels."""
    return {
        "name": "beats",
        "version": "1",
        "labels": list(LABELS),
        "class_weights": [1.0, 2.0, 1.0, 0.5],
        "layers": [
            {"kind": "standardise", "scope": "local"},
            {"kind": "conv1d", "filters": 16, "taps": 9, "stride": 2},
            {"kind": "relu"},
            {"kind": "maxpool"},
            {"kind": "conv1d", "filters": 24, "taps": 7},
            {"kind": "relu"},
            {"kind": "maxpool"},
            {"kind": "flatten"},
            {"kind": "dense", "units": 32},
            {"kind": "relu"},
            {"kind": "dense", "units": len(LABELS)},
        ],
        "window": {
            "stream": "ecg",
            "channels": channels,
            "rate_hz": 125.0,
            "length": LENGTH,
            "hop": LENGTH,
            "offset": [0.0] * channels,
            "scale": [1.0] * channels,
        },
        "training": {
            "learning_rate": 0.05,
            "momentum": 0.9,
            "batch": 32,
            "epochs": 1,
            "gradient_clip": 1.0,
            "augmentation": {"balance": 0.5},
        },
    }


class Beats(NamedTuple):
    """The set: windows (n, 128, C), classes 0 to 4 for N S V F Q, and records."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    record: npt.NDArray[np.int64]

    @property
    def patients(self) -> list[int]:
        """Numbers of the records."""
        return [int(one) for one in np.unique(self.record)]

    def windows(self, patient: int, *, labels: int) -> Windows:
        """A patient's beats of the first so many classes."""
        some = (self.record == patient) & (self.y < labels)
        return Windows(self.x[some], self.y[some])


def read(root: Path, *, template: bool = False) -> Beats:
    """Read the set.

    Raises:
        FileNotFoundError: it is not there.
    """
    with np.load(root / "mitdb_beats" / "mitdb_beats_ds1.npz", allow_pickle=False) as file:
        millivolt = file["X_uV"][:, _FIRST_SAMPLE : _FIRST_SAMPLE + LENGTH].astype(np.float32) / 1000
        y, record, before_s = file["y"].astype(np.int64), file["record"].astype(np.int64), file["rr_s"][:, 0]
    parts = []
    for patient in np.unique(record):
        own = record == patient
        rr = intervals(before_s[own].astype(np.float64))
        signals = [millivolt[own]]
        if template:
            signals.append(millivolt[own] - _means_before(millivolt[own].astype(np.float64)))
        constants = rr if template else rr[:, :2]
        spread = np.repeat(constants[:, np.newaxis], LENGTH, axis=1)
        parts.append((own, np.concatenate([np.stack(signals, axis=2), spread], axis=2)))
    x = np.empty((len(y), LENGTH, parts[0][1].shape[2]), np.float32)
    for own, windows in parts:
        x[own] = windows
    return Beats(x, y, record)


def intervals(before_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each beat of one record the interval before, its ratio to the mean of ten before, and to the one before.

    Scaled; what lies outside ± 1.5 s or times is brought to there.
    """
    known = np.where(np.isnan(before_s), _FIRST_RR_S, before_s)
    sums = np.concatenate([[0.0], np.cumsum(known)])
    at = np.arange(len(known))
    first = np.maximum(at - _BEFORE, 0)
    mean = np.where(at > first, (sums[at] - sums[first]) / np.maximum(at - first, 1), known)
    previous = np.concatenate([known[:1], known[:-1]])
    columns = np.stack([known - _FIRST_RR_S, known / mean - 1, known / previous - 1], axis=1)
    return np.clip(columns, -_RR_SPAN, _RR_SPAN)


def _means_before(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each beat the mean of the hundred before it; of the first one, itself."""
    sums = np.concatenate([np.zeros((1, signal.shape[1])), np.cumsum(signal, axis=0)])
    at = np.arange(len(signal))
    first = np.maximum(at - _TEMPLATE_BEATS, 0)
    means = (sums[at] - sums[first]) / np.maximum(at - first, 1)[:, np.newaxis]
    means[0] = signal[0]
    return means


def folds(found: Beats, seed: int) -> list[Study]:
    """A study for every fold of patients, which are dealt in the order of their records."""
    bundle = build(recipe(found.x.shape[2]), seed)
    taught = {one: found.windows(one, labels=len(LABELS)) for one in found.patients}
    judged = {one: found.windows(one, labels=len(LABELS) + 1) for one in found.patients}
    studies = []
    for number in range(FOLDS):
        held_out = found.patients[number::FOLDS]
        clients = {f"patient-{one}": windows for one, windows in taught.items() if one not in held_out}
        held = [Held(f"patient-{one}", judged[one]) for one in held_out]
        studies.append(Study(bundle, clients, held, SETTINGS, beats))
    return studies


def rows(root: Path, seed: int, *, quick: bool) -> Rows:
    """What comes of it, with one seed."""
    plain, more = (hurried(folds(read(root, template=one), seed), quick=quick) for one in (False, True))
    return (
        federated(plain, seed)
        | {"pooled": pooled(plain, seed, at_home=True), "alone": alone_elsewhere(plain, seed)}
        | federated(more, seed, "template: ", ONLY_8_BIT)
    )
