"""What the buffer's low-rate tables hold."""

from __future__ import annotations

from dataclasses import dataclass

from bedside.core.ids import SessionId, StreamId


@dataclass(frozen=True, slots=True)
class Session:
    """The time in which a stream belongs to one person.

    Attributes:
        session: random, local, never leaves the device.
        closed_ns: None while it is open.
        consent_training: whether its windows may be trained on.
        origin: who opened it (`replay`, `cli`, `adt`, `gap`).
    """

    session: SessionId
    stream: StreamId
    opened_ns: int
    closed_ns: int | None
    consent_training: bool
    origin: str


@dataclass(frozen=True, slots=True)
class Label:
    """A class name over a time of one session. `number` is 0 before it is stored."""

    stream: StreamId
    session: SessionId
    start_ns: int
    end_ns: int
    label: str
    origin: str
    withdrawn: bool = False
    number: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """A decision about one window. `number` ascends; 0 before it is stored.

    Attributes:
        confidence: probability of `label`, 0 to 1.
        model: digest of the bundle and parameters that decided.
        latency_s: from the arrival of the sample that closed the window to the decision.
    """

    stream: StreamId
    session: SessionId
    start_ns: int
    end_ns: int
    label: str
    confidence: float
    model: bytes
    latency_s: float
    number: int = 0
