"""What the buffer's low-rate tables hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Quality
from bedside.service.text import bounded

HOLDS: Final = 0.5
"""Probability from which on one of several labels is likely."""

MAX_LABEL_BYTES: Final = 64
"""Bytes of a label's name in UTF-8."""


@dataclass(frozen=True, slots=True)
class Session:
    """The time in which a stream belongs to one person.

    Attributes:
        session: random, local, never leaves the device.
        closed_ns: None while it is open.
        consent_training: whether its windows may be trained on.
        origin: who opened it (`replay`, `cli`, `adt`, `gap`), or `late` for records that nobody's session covers.
        expired_ns: windows that start before it were stored by retention; those after it are cut from raw signal.
        raw_ns: start of the first part that is left of a run that retention has shortened; 0 without one.
        anchor_ns: start of that run, from which its windows are counted.
    """

    session: SessionId
    stream: StreamId
    opened_ns: int
    closed_ns: int | None
    consent_training: bool
    origin: str
    expired_ns: int = 0
    raw_ns: int = 0
    anchor_ns: int = 0


@dataclass(frozen=True, slots=True)
class Label:
    """A class name, or a measured value with its name, over a time of one session.

    Attributes:
        value: what was measured, in the unit of the models that learn from it; None for a class or label alone.
        number: 0 before it is stored.
    """

    stream: StreamId
    session: SessionId
    start_ns: int
    end_ns: int
    label: str
    origin: str
    withdrawn: bool = False
    number: int = 0
    value: float | None = None


def is_label_name(name: str) -> bool:
    """Whether this may be a label's name: some visible text, and not too long."""
    short = len(name) <= MAX_LABEL_BYTES and len(name.encode("utf-8", "replace")) <= MAX_LABEL_BYTES
    return short and bool(name.strip()) and bounded(name) == name


class Output(NamedTuple):
    """One output of a model that has no classes: the probability of a label, or a measured value."""

    name: str
    value: float
    unit: str = ""
    """UCUM code of a value; empty of a probability."""

    @property
    def is_probability(self) -> bool:
        """Whether it is one of several labels, and not a value."""
        return not self.unit

    @property
    def fields(self) -> dict[str, object]:
        """For programs and receivers."""
        if self.is_probability:
            return {"name": self.name, "probability": round(self.value, 6)}
        return {"name": self.name, "value": self.value, "unit": self.unit}


def likely(outputs: Sequence[Output]) -> str:
    """The labels that are likely, for people."""
    return ", ".join(one.name for one in outputs if one.value >= HOLDS) or "none"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A decision about one window. `number` ascends; 0 before it is stored.

    Attributes:
        label: the most probable class or label; empty where none of several labels is likely; of a regression the name
            of its first output.
        confidence: probability of `label`, 0 to 1; where that is empty, that the likeliest label does not hold; 1 of a
            regression.
        model: digest of the bundle and parameters that decided.
        model_name: name of the model in its manifest.
        latency_s: from the arrival of the sample that closed the window to the decision.
        outputs: of several labels or a regression, all of them; of a classification none.
    """

    stream: StreamId
    session: SessionId
    start_ns: int
    end_ns: int
    label: str
    confidence: float
    model: bytes
    latency_s: float
    model_name: str = ""
    number: int = 0
    outputs: tuple[Output, ...] = ()

    @property
    def is_measured(self) -> bool:
        """Whether it is of values, and has neither a class nor a probability."""
        return any(not one.is_probability for one in self.outputs)

    @property
    def words(self) -> str:
        """What was decided, for people: a class, the labels that are likely, or the values with their units."""
        if not self.outputs:
            return self.label
        if self.is_measured:
            return ", ".join(f"{one.name} {one.value:.4g}{f' {one.unit}' * (one.unit != '1')}" for one in self.outputs)
        return likely(self.outputs)

    @property
    def sureness(self) -> str:
        """Its probability, for people; empty where it has none."""
        return "" if self.is_measured else f"{self.confidence:.2f}"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A kind of reading that a source could not understand, and how many of them there were.

    Attributes:
        reason: see `bedside.core.vocabulary.reading.Reason`.
        what: code, coding system and unit as they were sent; never a value.
        first_ns: when the first one arrived.
        last_ns: when the newest one arrived.
    """

    source: str
    reason: str
    what: str
    count: int
    first_ns: int
    last_ns: int

    @property
    def kind(self) -> tuple[str, str, str]:
        """What there is one row of."""
        return self.source, self.reason, self.what


Priority = Literal["low", "medium", "high"]
"""Of an alarm, as IEC 60601-1-8 names them."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm from its raising on; each later time is 0 until it happens.

    Attributes:
        rule: name of the rule in `agent.toml`.
        value: probability or physical value that raised it.
        prediction: number of the prediction that raised it; 0 when a record did.
        acknowledged_by: a role or a place, never a patient.
    """

    rule: str
    stream: StreamId
    session: SessionId
    priority: Priority
    raised_ns: int
    value: float
    prediction: int = 0
    cleared_ns: int = 0
    acknowledged_ns: int = 0
    acknowledged_by: str = ""
    escalated_ns: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StoredWindow:
    """A labelled window that outlived its signal.

    Attributes:
        spec: digest of the window's specification, 32 bytes.
        label: what it was labelled when it was stored.
        values: shape (length, channels), float32, normalised.
    """

    stream: StreamId
    session: SessionId
    start_ns: int
    end_ns: int
    spec: bytes
    label: str
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Moments:
    """A minute of one channel, or of one field of a record, in physical units; zeros where `count` is 0.

    Attributes:
        name: of the field; the number of a channel.
        count: values that were there.
        deviation: standard deviation of the population.
    """

    name: str
    unit: str
    count: int
    mean: float
    minimum: float
    maximum: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What is left of one minute of raw signal or records.

    Attributes:
        minute: minutes since the epoch.
        channels: in the order of channels or of names.
        gaps: breaks of the signal within the minute.
        quality: all flags of the minute together.
    """

    stream: StreamId
    session: SessionId
    minute: int
    channels: tuple[Moments, ...]
    gaps: int
    quality: Quality


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """How much each part of a window spoke for its decision.

    Attributes:
        prediction: number of the prediction.
        output: name of the output that is explained; empty for the prediction's label.
        method: `occlusion`, or `occlusion-near` of a window that differs from the decided one in rounding or phase.
        weights: shape (segments, channels), float32.
    """

    prediction: int
    session: SessionId
    method: str
    weights: npt.NDArray[np.float32]
    output: str = ""
