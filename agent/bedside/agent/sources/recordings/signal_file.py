"""Signals of a foreign file as a `Recording`, and the source that plays it.

Invariants: a stream takes signals of one rate and one unit. What the file marks as not recorded is a gap, or NaN in
its channel where others go on; never a zero. Values stay whole numbers with a scale where that loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

from bedside.agent.sources.kind import option
from bedside.agent.sources.recordings.replay import PlayOptions
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.samples import Samples
from bedside.core.vocabulary.reading import shown
from bedside.firmware_bridge.recording import MAX_RECORDING_BYTES, Label, Recording
from bedside.ondevice.windows.part import NS_PER_S, offset_ns

_UCUM: Final = {
    **{unit: unit for unit in ("V", "mV", "uV", "nV", "%", "Pa", "kPa", "L", "mL", "L/s", "L/min")},
    "mmHg": "mm[Hg]",
    "cmH2O": "cm[H2O]",
    "degC": "Cel",
    "bpm": "/min",
    "NU": "1",
    "": "1",
}
"""What files call their units."""
_EXACT: Final = 1e-3
"""Of a step: what rounding in double precision leaves."""
_MAX_DRIFT: Final = 1e-5
"""Relative: beyond it a day is a second too long."""

Physical = npt.NDArray[np.float64]


class SignalFileOptions(PlayOptions, frozen=True, kw_only=True):
    """A file of signals that a library reads."""

    channels: Annotated[tuple[str, ...], option("names of its signals, else all")] = ()
    labels: Annotated[dict[str, str], option("class of an annotation, by its symbol or text; others are left out")] = (
        msgspec.field(default_factory=dict)
    )
    unit: Annotated[str, option("UCUM code, else what the file says")] = ""
    metric: Annotated[str, option("MDC reference id")] = ""


class FileJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child reads.

    Attributes:
        kind: `wfdb` or `edf`.
        path: of the file, or of the record without its ending.
        out: where the recording is to be written.
        annotator: ending of WFDB annotations; empty = none.
    """

    kind: str
    path: str
    out: str
    channels: tuple[str, ...] = ()
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    unit: str = ""
    metric: str = ""
    annotator: str = ""


class Signal(msgspec.Struct, frozen=True):
    """What a file says of one of its signals.

    Attributes:
        rate_hz: samples per second.
        unit: in the file's words.
        step: physical value of one digital step.
    """

    name: str
    rate_hz: float
    unit: str
    step: float


def chosen(signals: Sequence[Signal], wanted: Sequence[str]) -> list[int]:
    """Indexes of the signals that one stream takes.

    Args:
        signals: of the file.
        wanted: their names; empty = all.

    Raises:
        ConfigError: `signal-choice`: there is no such signal, or they differ in rate or unit.
    """
    names = [signal.name for signal in signals]
    for name in wanted:
        if names.count(name) != 1:
            raise _no_choice(f"the file has {names.count(name)} signals {shown(name)!r}", signals)
    indexes = [names.index(name) for name in wanted] if wanted else list(range(len(signals)))
    if not indexes:
        raise _no_choice("the file has no signals", signals)
    first = signals[indexes[0]]
    for other in (signals[index] for index in indexes):
        if other.rate_hz != first.rate_hz or other.unit != first.unit:
            raise _no_choice(f"{shown(other.name)} cannot go with {shown(first.name)} in one stream", signals)
    period_ns = NS_PER_S / first.rate_hz if first.rate_hz > 0 else 0.0
    if not period_ns or abs(offset_ns(1000, first.rate_hz) / 1000 / period_ns - 1) > _MAX_DRIFT:
        raise _no_choice(f"{first.rate_hz:g} Hz is no rate of a waveform: it must be a multiple of 0.001 Hz", signals)
    return indexes


def check_size(samples: int, channels: int) -> None:
    """Refuse what would not fit, before it is read.

    Raises:
        MalformedError: `bad-recording`.
    """
    if samples * channels * 4 > MAX_RECORDING_BYTES:
        raise MalformedError("bad-recording", f"{samples} samples of {channels} channels are too much to be played")


def recording_of(values: Physical, signals: Sequence[Signal], labels: Iterable[Label], job: FileJob) -> Recording:
    """Make a recording.

    Args:
        values: (samples, channels) in physical units; NaN is what was not recorded.
        signals: of the channels.
        labels: those outside the values, or cut by their border, are cut or left out.
        job: has the unit and the metric.

    Raises:
        ConfigError: `signal-unit`: the file's unit is not known.
        MalformedError: `bad-recording`.
    """
    unit = job.unit or _UCUM.get(signals[0].unit.strip(), "")
    if not unit:
        raise ConfigError(
            "signal-unit",
            f"the unit {shown(signals[0].unit)!r} is not known",
            remedy="set the option unit to the UCUM code of it",
        )
    empty: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isnan(values), axis=1)
    borders = np.flatnonzero(np.diff(np.concatenate(([False], empty, [False])).astype(np.int8)))
    gaps = tuple((int(start), int(end)) for start, end in borders.reshape(-1, 2))
    if gaps == ((0, len(values)),):
        raise MalformedError("bad-recording", "nothing was recorded in it")
    cut = (Label(max(0, x.start), min(x.end, len(values)), x.name) for x in labels)
    inside = tuple(sorted((x for x in cut if x.start < x.end), key=lambda label: label.start))
    steps = {signal.step for signal in signals}
    stored, scale = _compact(values, empty, steps.pop() if len(steps) == 1 else 0.0)
    return Recording(stored, signals[0].rate_hz, inside, unit=unit, metric=job.metric, scale=scale, gaps=gaps)


def _compact(values: Physical, empty: npt.NDArray[np.bool_], step: float) -> tuple[Samples, float]:
    """Values in steps as whole numbers where all of them are whole steps, else float32."""
    if step > 0:
        steps = np.where(empty[:, np.newaxis], 0.0, values / step)
        whole = np.rint(steps)
        most = np.abs(whole).max()
        if most < 1 << 31 and (np.abs(steps - whole) < _EXACT).all():  # NaN is neither
            return (whole.astype(np.int16) if most < 1 << 15 else whole.astype(np.int32)), step
    return values.astype(np.float32), 1.0


def class_of(word: str, labels: Mapping[str, str]) -> str:
    """The class that an annotation means; empty for one that nobody has named: a text may hold anything."""
    return labels.get(word.strip(), "")


def _no_choice(sentence: str, signals: Sequence[Signal]) -> ConfigError:
    listed = ", ".join(f"{shown(x.name)} ({x.rate_hz:g} Hz, {shown(x.unit)})" for x in signals[:40])
    return ConfigError(
        "signal-choice", sentence, remedy=f"name channels of one rate and one unit: the file has {listed}"
    )
