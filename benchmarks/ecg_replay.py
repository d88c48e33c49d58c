"""MIT-BIH records at 50 times real rate through a real agent: nothing lost, every beat decided once, and how well.

    .venv/bin/python benchmarks/ecg_replay.py --json

Twelve records in three folds of four patients. For each fold a model of the shipped recipe `ecg` is trained by the
agent's own training code on windows of the other eight patients; then one agent process replays the four records as
four streams of that model. Afterwards its buffer is compared with the files, sample by sample, and its predictions
with the beats that the cutter finds in the files, one by one. Detected and annotated beats are matched as AAMI EC57
does (150 ms, whole records with the learning phase, ventricular flutter of record 207 left out).

Figures: samples of buffer and file that differ; beats without exactly one prediction; sensitivity and positive
predictivity of the R-peak detector; sensitivity per class of the annotated beats that were found (a beat of class F or
Q has no right answer in a model of N, S and V and is left out, as AAMI's three-class form does); CPU per second of
signal of the whole way to a window (two leads of 360 Hz, band-pass, resampling, detection).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from ecg.device import START_NS, Replayed, make_device, read_device, run_device
from ecg.recordings import FOLDS, RECORDS, WfdbRecord, data_folder, read_record, recording_of
from ecg.training import cut_record, train_model
from nacl.signing import SigningKey
from report import Figure, arguments, emit, figure, table

from bedside.authoring.build import Built, build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.verify import verify_archive
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block
from bedside.firmware_bridge.recording import Recording
from bedside.ondevice.windows.cutter import Window, WindowCutter
from bedside.ondevice.windows.part import offset_ns

from beat_matching import BeatScores, beat_scores, match_beats, outside_flutter  # isort: skip - `ecg` finds the tests
from wfdb_records import AAMI  # isort: skip

SPEED = 50.0
CLASSES = ("N", "S", "V")
GOAL_BEATS = 0.993
GOAL_MS = 10.0


class Outcome(NamedTuple):
    """One record after its replay.

    Attributes:
        samples_off: samples that buffer and file do not have in common, each at its place.
        beats: windows that the cutter finds in the file.
        undecided: of those, without exactly one prediction; and predictions without a window.
        detector: detected against annotated beats.
        confusion: (annotated class, predicted class) of the annotated beats that were found.
    """

    samples_off: int
    beats: int
    undecided: int
    detector: BeatScores
    confusion: Counter[tuple[str, str]]


@dataclass
class Run:
    """What was measured; empty lists where the data is not."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    speeds: list[float] = field(default_factory=list)
    cpu_ms_per_s: list[float] = field(default_factory=list)
    cut_ms_per_s: list[float] = field(default_factory=list)


def judge(record: WfdbRecord, recording: Recording, replayed: Replayed, spec: WindowSpec) -> Outcome:
    """Compare what a device stored and said with the file."""
    same = replayed.stretches == 1 and replayed.values.shape == recording.values.shape
    samples_off = int((replayed.values != recording.values).any(axis=1).sum()) if same else len(recording.values)
    windows = cut_record(recording, spec, START_NS)
    predicted = Counter((one.start_ns, one.end_ns) for one in replayed.predictions)
    expected = Counter((window.start_ns, window.end_ns) for window in windows)
    undecided = sum(((predicted - expected) + (expected - predicted)).values())
    labels = {one.start_ns: one.label for one in replayed.predictions}
    detected_s = np.array([_peak_s(window, spec) for window in windows])
    annotated_s = record.beats / record.rate_hz
    pairs, _ = match_beats(annotated_s, detected_s)
    counted = outside_flutter(record, annotated_s) & (pairs >= 0)
    confusion = Counter(
        (AAMI[record.symbols[beat]], labels.get(windows[pairs[beat]].start_ns, "")) for beat in np.flatnonzero(counted)
    )
    return Outcome(samples_off, len(windows), undecided, beat_scores(record, detected_s), confusion)


def replay_fold(
    names: Sequence[str], records: Mapping[str, WfdbRecord], built: Built, key: SigningKey, epochs: int, folder: Path
) -> tuple[dict[str, Outcome], float, float]:
    """Train without `names`, replay them, judge; also times real time, and CPU milliseconds per second of a stream."""
    bundle = verify_archive(built.tar, [bytes(key.verify_key)])
    spec = bundle.manifest.window
    recordings = {name: recording_of(record) for name, record in records.items()}
    others = {name: recording for name, recording in recordings.items() if name not in names}
    checkpoint = train_model(bundle, others, epochs, seed=1)
    played = {f"ecg-{name}": replace(recordings[name], labels=()) for name in names}
    make_device(folder, played, built.tar, bytes(key.verify_key), SPEED, checkpoint)
    signal_s = max(len(recording.values) / recording.rate_hz for recording in played.values())
    wall_s, cpu_s = run_device(folder, played, deadline_s=20 * signal_s / SPEED + 60)
    outcomes = {
        name: judge(records[name], recordings[name], read_device(folder, f"ecg-{name}"), spec) for name in names
    }
    return outcomes, signal_s / wall_s, cpu_s * 1e3 / signal_s / len(names)


def cut_ms_per_s(record: WfdbRecord, recording: Recording, spec: WindowSpec, seconds: int = 60) -> float:
    """CPU milliseconds per second of signal from blocks of 40 ms to windows; both leads are taken."""
    both = _both_leads(spec)
    step = int(0.04 * record.rate_hz)
    blocks = [
        Block(
            *(StreamId(spec.stream), START_NS + offset_ns(first, record.rate_hz), record.rate_hz),
            recording.values[first : first + step],
            scale=recording.scale,
        )
        for first in range(0, round(seconds * record.rate_hz), step)
    ]
    cutter = WindowCutter(both)
    began_s = time.process_time()
    for block in blocks:
        cutter.push(block, SessionId("bench"), 0.0)
    return (time.process_time() - began_s) * 1e3 / seconds


def _both_leads(spec: WindowSpec) -> WindowSpec:
    first, *rest = zip(spec.offset, spec.scale, strict=True)
    offset, scale = zip(first, first, *rest, strict=True)
    return msgspec.structs.replace(spec, pick=(0, 1), channels=spec.channels + 1, offset=offset, scale=scale)


def _peak_s(window: Window, spec: WindowSpec) -> float:
    assert spec.beat is not None
    return (window.start_ns - START_NS) / 1e9 + spec.beat.before / spec.rate_hz


def measure(folder: Path, *, quick: bool, runs: int) -> Run:
    """Train and replay every fold; one record of each and one epoch when `quick`."""
    key = SigningKey(b"benchmark-author".ljust(32, b"."))
    built = build_bundle(load_recipe("ecg"), key)
    kept = [fold[:1] for fold in FOLDS[:2]] if quick else FOLDS
    records = {
        name: read_record(folder, name) for name in (RECORDS if not quick else [n for fold in kept for n in fold])
    }
    run = Run()
    for names in kept:
        with tempfile.TemporaryDirectory() as scratch:
            epochs = 1 if quick else built.manifest.training.epochs
            outcomes, speed, cpu = replay_fold(names, records, built, key, epochs, Path(scratch) / "device")
        run.outcomes |= outcomes
        run.speeds.append(speed)
        run.cpu_ms_per_s.append(cpu)
    first = next(iter(records.values()))
    window = built.manifest.window
    run.cut_ms_per_s = [cut_ms_per_s(first, recording_of(first), window) for _ in range(max(3, runs))]
    return run


def figures(run: Run | None, why: str) -> list[Figure]:
    """All figures by their stable names."""
    outcomes = list(run.outcomes.values()) if run is not None else []
    confusion: Counter[tuple[str, str]] = sum((one.confusion for one in outcomes), Counter())
    found, missed = sum(one.detector.found for one in outcomes), sum(one.detector.missed for one in outcomes)
    total = BeatScores(found, missed, sum(one.detector.extra for one in outcomes))

    def sensitivity(name: str) -> float | None:
        all_of = sum(count for (true, _), count in confusion.items() if true == name)
        return confusion[name, name] / all_of if all_of else None

    def precision(name: str) -> float:
        said = sum(count for (true, told), count in confusion.items() if told == name and true in CLASSES)
        return confusion[name, name] / max(1, said)

    def value(number: float | None) -> float | None:
        return number if outcomes else None

    pairs = [(sensitivity(name) or 0.0, precision(name)) for name in CLASSES]
    f1 = statistics.mean(2 * se * pp / max(1e-9, se + pp) for se, pp in pairs)
    split = "patients that the model was not trained on" if outcomes else why
    speed = statistics.median(run.speeds) if run is not None and run.speeds else None
    agent = statistics.median(run.cpu_ms_per_s) if run is not None and run.cpu_ms_per_s else None
    cut = statistics.median(run.cut_ms_per_s) if run is not None and run.cut_ms_per_s else None
    lower, higher = {"better": "lower"}, {"better": "higher"}
    return [
        figure("samples_lost", value(sum(one.samples_off for one in outcomes)), "samples", goal=0, note=why, **lower),
        figure(
            "beats_not_decided_once", value(sum(one.undecided for one in outcomes)), "beats", goal=0, note=why, **lower
        ),
        figure("beat_sensitivity", value(total.sensitivity), "share", goal=GOAL_BEATS, note=why, **higher),
        figure("beat_predictivity", value(total.precision), "share", goal=GOAL_BEATS, note=why, **higher),
        *(figure(f"sensitivity_{name.lower()}", sensitivity(name), "share", note=split, **higher) for name in CLASSES),
        figure("macro_f1", value(f1), "F1 of N, S, V", note=split, **higher),
        figure("replay_x_realtime", speed, "x real time", goal=SPEED * 0.9, note=why, **higher),
        figure("agent_cpu_ms_per_s", agent, "ms CPU per second of a stream, start included", note=why, **lower),
        figure("cut_ms_per_s", cut, "ms CPU per second of signal", goal=GOAL_MS, note=why, **lower),
    ]


def show(run: Run) -> None:
    """Tables for people."""
    rows = []
    for name, one in run.outcomes.items():
        said = [
            f"{one.confusion[true, true]}/{sum(n for (a, _), n in one.confusion.items() if a == true)}"
            for true in CLASSES
        ]
        detector = [f"{100 * one.detector.sensitivity:.2f}", f"{100 * one.detector.precision:.2f}"]
        rows.append([name, str(one.samples_off), str(one.beats), str(one.undecided), *detector, *said])
    heads = ["record", "samples off", "beats", "not once", "Se %", "+P %", *(f"{name} right" for name in CLASSES)]
    print(table(heads, rows))


def main() -> None:
    """Measure and print."""
    asked = arguments(__doc__).parse_args()
    folder = asked.data / "mitdb_wfdb" if asked.data is not None else data_folder()
    run, why = None, ""
    if folder is None or not folder.is_dir():
        why = "the real data is not here: set BEDSIDE_DATA"
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        run = measure(folder, quick=asked.quick, runs=asked.runs or 3)
        if not asked.json:
            show(run)
    detail = {
        name: {**one._asdict(), "confusion": {f"{a}>{b}": n for (a, b), n in one.confusion.items()}}
        for name, one in (run.outcomes.items() if run is not None else ())
    }
    emit("ecg_replay", asked.runs or 1, figures(run, why), detail)


if __name__ == "__main__":
    main()
