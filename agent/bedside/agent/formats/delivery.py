"""What one message of a device or a gateway delivers: readings by time, and what is no reading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from bedside.core.samples import Quality
from bedside.core.vocabulary.reading import Reading, Unusable


@dataclass(frozen=True, slots=True)
class Moment:
    """When readings were taken, as a message says it.

    Attributes:
        time: with an offset, or local to the device without one; None where none was sent: it is now.
        bad: a time was sent, and no calendar has it or nothing says where it lies.
        quality: SIMULATED for data of a demonstration or test.
    """

    time: datetime | None = None
    bad: bool = False
    quality: Quality = Quality.GOOD


@dataclass(slots=True)
class Delivery:
    """What was found in one message, in its order.

    Attributes:
        readings: by the moment that they are of.
        left: what is no reading, one for each: counted in the quarantine.
        event: what a message of the protocol itself says, in our words; empty for others.
    """

    readings: dict[Moment, list[Reading]] = field(default_factory=dict)
    left: list[Unusable] = field(default_factory=list)
    event: str = ""

    def add(self, moment: Moment, readings: Iterable[Reading]) -> None:
        """Take readings of a moment."""
        self.readings.setdefault(moment, []).extend(readings)
