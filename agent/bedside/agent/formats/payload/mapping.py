"""What one message of a broker says: readings of one time, a stretch of a waveform, or why it says nothing.

A configuration describes each payload; nothing is found out by looking. The descriptions are in `payload.plain` and
`payload.clinical`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Protocol

import msgspec

from bedside.core.samples import Quality, Samples
from bedside.core.vocabulary.reading import Reading, Reason


@dataclass(frozen=True, slots=True)
class Row:
    """Readings of one time.

    Attributes:
        time_ns: by the sender's clock; None when it says none, or one that is none.
        quality: SIMULATED for what a sender calls a test.
    """

    time_ns: int | None
    readings: tuple[Reading, ...]
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True)
class Wave:
    """A stretch of a waveform.

    Attributes:
        time_ns: of the first sample by the sender's clock; None when it says none.
        rate_hz: samples per second and channel.
        values: shape (samples, channels).
        unit: UCUM code of a value after `scale`.
        metric: MDC reference id.
        scale: physical value = stored value times `scale`.
    """

    time_ns: int | None
    rate_hz: float
    values: Samples
    unit: str
    metric: str
    scale: float


@dataclass(frozen=True, slots=True)
class Refused:
    """Readings that are not understood.

    Attributes:
        what: names their kind; never a value.
        count: of readings.
    """

    reason: Reason
    what: str
    count: int = 1


Found = Row | Wave | Refused


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a payload beside its bytes.

    Attributes:
        arrived_ns: wall time.
        code: of a reading whose topic says it.
        sender: the topic.
    """

    arrived_ns: int
    code: str = ""
    sender: str = ""


class Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of the descriptions; a subclass says what it reads."""

    waves: ClassVar[bool] = False

    @property
    def has_time(self) -> bool:
        """Whether such payloads say when they were measured."""
        return True

    def reader(self, time_zone: str, codes: Collection[str]) -> PayloadReader:
        """What reads such payloads.

        Args:
            time_zone: IANA name, of times without an offset.
            codes: that the configuration names.

        Raises:
            ConfigError: what is wrong with the description.
        """
        raise NotImplementedError


class PayloadReader(Protocol):
    """Reads payloads of one description."""

    def read(self, data: bytes, envelope: Envelope) -> list[Found]:
        """What a payload says.

        Raises:
            MalformedError: it is not what it should be.
        """
