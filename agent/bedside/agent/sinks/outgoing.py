"""What leaves the device for a hospital's systems: one decision, one change of an alarm, one record.

Invariants:
    * Nothing here has a session, which never leaves the device. A stream is told with the place or device that the
      configuration gives it.
    * Ids are derived from the device and the row with its session, so that the same row has the same id after a crash,
      and no other has, also not one that comes into its place when it was forgotten.

Source: RFC 9562, section 5.5 (UUIDv5); DESIGN section 4.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from bedside.agent.buffer.rows import Output, Priority
from bedside.core.samples import Quality

ADVISORY: Final = "Advisory only. Bedside is not a medical device; this replaces no monitor and no diagnosis."
"""Goes with every result that a person may read."""

What = Literal["alarms", "predictions", "records"]

_NAMESPACE: Final = uuid.UUID("6f1d7a52-9a55-5c0b-8f0e-4f3c1d7b2a90")


@dataclass(frozen=True, slots=True)
class SentPrediction:
    """A decision about one window.

    Attributes:
        confidence: probability of `label`, 0 to 1.
        model: name of the model in its manifest.
        digest: of the bundle and parameters that decided.
        outputs: of a model of several labels or of a regression, all of them.
    """

    label: str
    confidence: float
    start_ns: int
    end_ns: int
    model: str
    digest: bytes
    outputs: tuple[Output, ...] = ()

    @property
    def is_measured(self) -> bool:
        """Whether it is of values, and has neither a class nor a probability."""
        return any(not one.is_probability for one in self.outputs)


@dataclass(frozen=True, slots=True)
class SentAlarm:
    """An alarm as it is now; a time is 0 until it happens.

    Attributes:
        rule: name of the rule in `agent.toml`.
        value: probability or physical value that raised it.
        acknowledged_by: a role or a place.
    """

    rule: str
    priority: Priority
    value: float
    raised_ns: int
    cleared_ns: int
    acknowledged_ns: int
    acknowledged_by: str
    escalated_ns: int

    @property
    def state(self) -> str:
        """`raised`, `escalated`, `acknowledged` (it lasts), `cleared` (nobody has seen it), or `closed` (both)."""
        if self.cleared_ns:
            return "closed" if self.acknowledged_ns else "cleared"
        if self.acknowledged_ns:
            return "acknowledged"
        return "escalated" if self.escalated_ns else "raised"

    @property
    def changed_ns(self) -> int:
        """Time of the newest change."""
        return max(self.raised_ns, self.cleared_ns, self.acknowledged_ns, self.escalated_ns)


@dataclass(frozen=True, slots=True)
class SentRecord:
    """Values of one time.

    Attributes:
        values: by field, in its unit; NaN where the device says that it has none.
        units: UCUM code by field; fields without a unit are missing.
    """

    time_ns: int
    values: Mapping[str, float]
    units: Mapping[str, str] = field(default_factory=dict)
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One thing to deliver.

    Attributes:
        number: ascends with every delivery of its sort, for alarms with every change; 0 for a record that a sink sends
            on demand and that was stored before any sink wanted it.
        id: of the thing itself: the same for every change of one alarm.
        message_id: of this delivery: each change of an alarm has its own, and the same again after a crash.
        device: pseudonymous id of this device.
        stream: id of the stream.
        subject: what the configuration calls the stream outside: a place or a device, never a session; may be empty.
        body: what happened.
        again: sent once more on demand, out of the order of numbers.
    """

    number: int
    id: uuid.UUID
    message_id: uuid.UUID
    device: str
    stream: str
    subject: str
    body: SentPrediction | SentAlarm | SentRecord
    again: bool = False

    @property
    def what(self) -> What:
        """Its sort."""
        if isinstance(self.body, SentAlarm):
            return "alarms"
        return "predictions" if isinstance(self.body, SentPrediction) else "records"

    @property
    def time_ns(self) -> int:
        """When it happened: the end of a window, the newest change of an alarm, the time of a record."""
        if isinstance(self.body, SentAlarm):
            return self.body.changed_ns
        return self.body.end_ns if isinstance(self.body, SentPrediction) else self.body.time_ns


def derive_id(*names: str | int) -> uuid.UUID:
    """The id of a row that these names describe: device, sort, stream, session, number, place and times.

    A session is 128 random bits and never comes again, so that a row in the place of one that was forgotten, or in a
    buffer that was begun anew, has another id. From an id nobody learns its session.
    """
    return uuid.uuid5(_NAMESPACE, "\n".join(map(str, names)))
