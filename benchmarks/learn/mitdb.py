"""mitdb_beats: 50,980 beats of 22 patients in AAMI classes; every patient is judged by a model that never saw it.

Five folds of patients. A beat is what a device cuts round an R peak: 128 samples at 125 Hz, the same less the mean of
the beats before it, and what the interval before it is beside earlier ones. All of it is standardised by the patient's
own moments, which need no labels. Beats of class Q (eight of them) are not trained on; no model here has that class.

`bare` is the same without the mean of beats and without the interval's change, to see what these bring.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bedside.authoring.simulation.settings import Settings
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import Beat
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.windows.shaping import Shaper
from bedside.ondevice.windows.template import BeatTemplate

from .compared import ONLY_8_BIT, Rows, alone_elsewhere, federated, hurried, pooled
from .metrics import beats
from .study import Held, Study, build

Float32 = npt.NDArray[np.float32]

FOLDS: Final = 5
LABELS: Final = ("N", "S", "V", "F")
LENGTH: Final = 128
_FIRST_SAMPLE: Final = 6
"""Of the set's 187 samples; the R peak, its sample 62, comes to 56 as in the shipped recipe."""

_FIRST_RR_S: Final = 0.8
_BEFORE: Final = 10
_RR_SPAN: Final = 1.5

BEAT: Final = Beat(0, 56, 72, rr=True, rr_change=True, template=32)
BARE: Final = Beat(0, 56, 72, rr=True)

SETTINGS: Final = Settings(rounds=15, steps=15, final_learning_rate=0.001, weighting="uniform", clip=3.0)


def recipe(beat: Beat) -> dict[str, object]:
    """The model of such beats."""
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
        "window": msgspec.to_builtins(window(beat)),
        "training": {
            "learning_rate": 0.05,
            "momentum": 0.9,
            "batch": 32,
            "epochs": 1,
            "gradient_clip": 1.0,
            "augmentation": {"balance": 0.5},
        },
    }


def window(beat: Beat) -> WindowSpec:
    """What a device cuts."""
    channels = (2 if beat.template else 1) + beat.interval_channels
    return WindowSpec("ecg", channels, 125.0, LENGTH, LENGTH, (0.0,) * channels, (1.0,) * channels, beat=beat)


class Beats(NamedTuple):
    """The set: windows (n, 128, C), classes 0 to 4 for N S V F Q, and records."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    record: npt.NDArray[np.int64]
    beat: Beat

    @property
    def patients(self) -> list[int]:
        """Numbers of the records."""
        return [int(one) for one in np.unique(self.record)]

    def windows(self, patient: int, *, labels: int) -> Windows:
        """A patient's beats of the first so many classes."""
        some = (self.record == patient) & (self.y < labels)
        return Windows(self.x[some], self.y[some])


def read(root: Path, beat: Beat = BEAT) -> Beats:
    """Read the set.

    Raises:
        FileNotFoundError: it is not there.
    """
    with np.load(root / "mitdb_beats" / "mitdb_beats_ds1.npz", allow_pickle=False) as file:
        millivolt = file["X_uV"][:, _FIRST_SAMPLE : _FIRST_SAMPLE + LENGTH].astype(np.float64) / 1000
        y, record, before_s = file["y"].astype(np.int64), file["record"].astype(np.int64), file["rr_s"][:, 0]
    spec = window(beat)
    x = np.empty((len(y), LENGTH, spec.channels), np.float32)
    for patient in np.unique(record):
        own = record == patient
        x[own] = _shaped(spec, beat, millivolt[own, :, np.newaxis], intervals(before_s[own].astype(np.float64)))
    return Beats(x, y, record, beat)


def _shaped(spec: WindowSpec, beat: Beat, signal: npt.NDArray[np.float64], rr: npt.NDArray[np.float64]) -> Float32:
    """One patient's beats by the stages of a device."""
    shaper, template = Shaper(spec), BeatTemplate(beat.template)
    windows = []
    for one, known in zip(signal, rr[:, : beat.interval_channels], strict=True):
        level = shaper.level(one)
        channels = [level, template.deviation(level)] if beat.template else [level]
        windows.append(shaper.scale(*channels, np.broadcast_to(known, (LENGTH, len(known)))))
    return np.stack(windows)


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


def folds(found: Beats, seed: int) -> list[Study]:
    """A study for every fold of patients, which are dealt in the order of their records."""
    bundle = build(recipe(found.beat), seed)
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
    whole, bare = (hurried(folds(read(root, beat), seed), quick=quick) for beat in (BEAT, BARE))
    return (
        federated(whole, seed)
        | {"pooled": pooled(whole, seed, at_home=True), "alone": alone_elsewhere(whole, seed)}
        | federated(bare, seed, "bare: ", ONLY_8_BIT)
    )
