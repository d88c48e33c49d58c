"""Measures models on the held-out wearers' windows, with the very sessions that devices use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.verify import Bundle
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block
from bedside.firmware_bridge.recording import Recording
from bedside.ondevice.refresh import float_runtime, int8_runtime
from bedside.ondevice.runtimes import Float32, Runtime
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.windows.cutter import WindowCutter

_BATCH: Final = 64
_ANY_SESSION: Final = SessionId("recording")

Classes = npt.NDArray[np.int64]


class Scores(NamedTuple):
    """One set of parameters on one set of windows.

    Attributes:
        accuracy: part of windows that the float model classifies as labelled.
        int8_accuracy: the same for the int8 model that devices serve.
        agreement: part of windows on which both name the same class.
    """

    accuracy: float
    int8_accuracy: float
    agreement: float


def cut_windows(recordings: Sequence[Recording], spec: WindowSpec, labels: Sequence[str]) -> Windows:
    """Cut labelled windows with the device's own cutter: none crosses a session, none lies half under a label.

    Returns:
        `x` (n, length, channels) float32, normalised; `y` (n,) class indices.
    """
    pairs = [pair for recording in recordings for pair in _labelled(recording, spec, labels)]
    x = np.empty((len(pairs), spec.length, spec.channels), np.float32)
    for index, (values, _) in enumerate(pairs):
        x[index] = values
    return Windows(x, np.array([label for _, label in pairs], np.int64))


def _labelled(recording: Recording, spec: WindowSpec, labels: Sequence[str]) -> Iterator[tuple[Float32, int]]:
    for first, end in recording.sessions:
        block = Block(StreamId(spec.stream), 0, recording.rate_hz, recording.values[first:end], scale=recording.scale)
        for number, window in enumerate(WindowCutter(spec).push(block, _ANY_SESSION, 0.0)):
            start = first + number * spec.hop
            names = [one.name for one in recording.labels if one.start <= start and start + spec.length <= one.end]
            if len(names) == 1 and names[0] in labels:
                yield window.values, labels.index(names[0])


def classify(runtime: Runtime, x: Float32) -> Classes:
    """Return the class of the largest logit of every window."""
    parts = [runtime.predict(x[at : at + _BATCH]).argmax(axis=1) for at in range(0, len(x), _BATCH)]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def score(bundle: Bundle, parameters: Mapping[str, Float32], windows: Windows) -> Scores:
    """Measure `parameters` as float and as int8."""
    by_float = classify(float_runtime(bundle, parameters), windows.x)
    by_int8 = classify(int8_runtime(bundle, parameters), windows.x)
    return Scores(
        float((by_float == windows.y).mean()),
        float((by_int8 == windows.y).mean()),
        float((by_float == by_int8).mean()),
    )


def float_accuracy(bundle: Bundle, parameters: Mapping[str, Float32], windows: Windows) -> float:
    """Part of `windows` that the float model classifies as labelled."""
    return float((classify(float_runtime(bundle, parameters), windows.x) == windows.y).mean())
