"""What a sensor delivers: blocks of a waveform, and records of one row.

Source: DESIGN section 4; units are UCUM codes, metrics are ISO/IEEE 11073-10101 (MDC) reference ids.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntFlag, auto
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bedside.core.ids import StreamId
from bedside.core.limits import MAX_CHANNELS, MAX_RATE_HZ, MAX_SIGNAL_TEXT_CHARS, MAX_WAVEFORM_BLOCK_S

Samples = npt.NDArray[np.int16] | npt.NDArray[np.int32] | npt.NDArray[np.float32]

_DTYPES: Final = frozenset({"int16", "int32", "float32"})


class Quality(IntFlag):
    """What is known to be wrong with a block; zero means nothing is."""

    GOOD = 0
    GAP_BEFORE = 1
    """Samples are missing between the previous block and this one."""
    SATURATED = 2
    SENSOR_OFF = 4
    SIMULATED = 8
    """Replayed or generated, not measured now."""


@dataclass(frozen=True, slots=True)
class Block:
    """A chunk of one stream.

    Attributes:
        stream: which channel group.
        start_ns: time of the first sample, nanoseconds since the epoch.
        rate_hz: samples per second and channel.
        values: shape (samples, channels); int16, int32 or float32, C order.
        unit: UCUM code of one value after `scale`.
        metric: MDC reference id, for instance `MDC_ECG_ELEC_POTL_II`; empty when unknown.
        scale: physical value = stored value times `scale`.
        quality: flags of the whole block.
    """

    stream: StreamId
    start_ns: int
    rate_hz: float
    values: Samples
    unit: str = "1"
    metric: str = ""
    scale: float = 1.0
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True)
class Record:
    """One row of tabular features with a time (EHR, laboratory, vital signs)."""

    stream: StreamId
    time_ns: int
    values: Mapping[str, float]
    units: Mapping[str, str] = field(default_factory=dict)
    quality: Quality = Quality.GOOD


class MarkKind(Enum):
    """What a mark says."""

    LABEL = auto()
    SESSION_OPEN = auto()
    SESSION_CLOSE = auto()


@dataclass(frozen=True, slots=True)
class Mark:
    """A label, or the start or end of a session, that a source knows about its own stream.

    Attributes:
        start_ns: first nanosecond that the mark covers.
        end_ns: first nanosecond after it; equal to `start_ns` for session marks.
        label: class name for a label; empty otherwise.
        origin: who says so (`replay`, `cli`, `csv`, `adt`).
        kind: no name of a label is taken for the mark of a session.
    """

    stream: StreamId
    start_ns: int
    end_ns: int
    label: str
    origin: str
    kind: MarkKind = MarkKind.LABEL


@dataclass(frozen=True, slots=True)
class Unmapped:
    """What a source could not turn into a value; it is counted in the quarantine, and never guessed.

    Attributes:
        source: name of the source.
        reason: why, see `bedside.core.vocabulary.reading.Reason`.
        what: code, coding system and unit as they were sent: `Reading.what`, or one word in the form of a code. Never a
            value, for that may be a patient's name; see `bedside.core.vocabulary.reading.as_what`.
        time_ns: when it arrived.
        count: of readings.
    """

    source: str
    reason: str
    what: str
    time_ns: int
    count: int = 1


Event = Block | Record | Mark | Unmapped
"""What a source yields."""


def samples_per_block(rate_hz: float) -> int:
    """How many samples per channel a block of a waveform holds at most: one, where even that is above 40 ms."""
    return max(1, int(rate_hz * MAX_WAVEFORM_BLOCK_S))


def form_fault(values: Samples, rate_hz: float, unit: str, metric: str, scale: float) -> str:
    """Why no signal has this form, in one sentence; empty when some has.

    Args:
        values: of any shape and dtype.
        rate_hz: samples per second and channel.
        unit: UCUM code.
        metric: MDC reference id.
        scale: physical value = stored value times `scale`.
    """
    if values.ndim != 2 or values.dtype.name not in _DTYPES:
        return "values are int16, int32 or float32 of shape (samples, channels)"
    if not 1 <= values.shape[1] <= MAX_CHANNELS:
        return f"a stream has 1 to {MAX_CHANNELS} channels, not {values.shape[1]}"
    if not 0 < rate_hz <= MAX_RATE_HZ:
        return f"a rate of {rate_hz:g} Hz is impossible: above 0, and {MAX_RATE_HZ:g} at most"
    if not math.isfinite(scale):
        return "a scale is a finite number"
    if not all(len(text) <= MAX_SIGNAL_TEXT_CHARS and text.isprintable() for text in (unit, metric)):
        return f"unit and metric are visible text of {MAX_SIGNAL_TEXT_CHARS} characters at most"
    return ""


class Source(Protocol):
    """One input. It ends by returning, and fails by raising; the supervisor restarts it."""

    name: str

    def events(self) -> AsyncIterator[Event]:
        """Yield what arrives, in the order of time within a stream."""
