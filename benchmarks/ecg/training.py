"""A model for records of patients that it has not seen: the agent's own windows, labels and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bedside.agent.buffer.rows import Label
from bedside.agent.windows.training import MIN_COVER
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.verify import Bundle
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block
from bedside.firmware_bridge.recording import Recording
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.train import Schedule, train
from bedside.ondevice.windows.cutter import Window, WindowCutter
from bedside.ondevice.windows.labelling import Labeller
from bedside.ondevice.windows.part import offset_ns

SESSION = SessionId("record")
RARE_SHARE = 0.2
"""Rare classes are repeated up to this part of the commonest: of 100 beats one is supraventricular."""


def cut_record(recording: Recording, spec: WindowSpec, start_ns: int) -> list[Window]:
    """Every window of a record whose first sample is at `start_ns`."""
    block = Block(StreamId(spec.stream), start_ns, recording.rate_hz, recording.values, scale=recording.scale)
    return WindowCutter(spec).push(block, SESSION, 0.0)


def train_model(bundle: Bundle, recordings: Mapping[str, Recording], epochs: int, seed: int) -> bytes:
    """Train from the bundle's parameters; return the checkpoint, as a round's result would be."""
    spec, classes = bundle.manifest.window, bundle.manifest.labels
    found = [_labelled(recording, spec, classes) for recording in recordings.values()]
    x, y = np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])
    chosen = _levelled(y, len(classes))
    training = bundle.manifest.training
    schedule = Schedule(training.learning_rate, training.momentum, 0.0, training.batch, epochs, 1, 1, seed)
    trained = train(bundle, bundle.parameters, Windows(np.ascontiguousarray(x[chosen]), y[chosen]), schedule)
    return encode_tensors({spec.name: trained.state[spec.name] for spec in bundle.manifest.shared()})


def _labelled(
    recording: Recording, spec: WindowSpec, classes: Sequence[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    stream = StreamId(spec.stream)
    rate_hz = recording.rate_hz
    labels = [
        Label(stream, SESSION, offset_ns(one.start, rate_hz), offset_ns(one.end, rate_hz), one.name, "file")
        for one in recording.labels
    ]
    labeller = Labeller(spec, labels, MIN_COVER)
    pairs = [(window.values, labeller.label_of(window)) for window in cut_record(recording, spec, 0)]
    kept = [(values, classes.index(name)) for values, name in pairs if name in classes]
    x = np.array([values for values, _ in kept], np.float32)
    return x, np.array([number for _, number in kept], np.int64)


def _levelled(y: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """Indices of all examples, rare classes repeated."""
    counts = np.bincount(y, minlength=classes)
    chosen = [np.arange(len(y))]
    for number in range(classes):
        own = np.flatnonzero(y == number)
        repeats = int(RARE_SHARE * counts.max() / max(1, len(own)))
        chosen.append(np.tile(own, max(0, repeats - 1)))
    return np.concatenate(chosen)
