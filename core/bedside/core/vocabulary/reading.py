"""What a device said, before anybody believes it, and what becomes of it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_WHAT_CHARS: Final = 120
"""Characters that name a kind of reading in the quarantine: a code, its system and a unit."""


class Reason(StrEnum):
    """Why a reading has no value here. The words are stored and shown; they are never reworded."""

    BAD_MESSAGE = "bad-message"
    """The whole message cannot be read."""
    UNKNOWN_CODE = "unknown-code"
    UNKNOWN_UNIT = "unknown-unit"
    """No UCUM unit is meant by it, or none that converts into the field's."""
    NOT_A_NUMBER = "not-a-number"
    """Text, or another form than its type says."""
    OUT_OF_RANGE = "out-of-range"
    """Beyond what the quantity can be, and no known sentinel."""
    AMBIGUOUS = "ambiguous"
    """Two different values of one quantity at one time, and nothing says which."""
    BAD_STATUS = "bad-status"
    """A correction, a deletion or a preliminary result: not what a sensor measured now."""
    BAD_TIME = "bad-time"
    UNKNOWN_PLACE = "unknown-place"
    """A bed, device or topic that the configuration gives no stream."""
    NOT_WANTED = "not-wanted"
    """Of a form that no stream takes: an image, a document, a device's description."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One value as a device or an interface engine sent it.

    Attributes:
        code: as sent: `147842`, `MDC_ECG_HEART_RATE`, `8867-4`, `hr`.
        value: a number, text that should be one, or None for an empty field.
        system: `MDC`, `LN` (LOINC) or another name; empty for local codes.
        unit: as sent: UCUM, an MDC unit code or reference id, or the words of a device; empty when none was sent.
        channel: which of several alike, for instance OBX-4; empty when there is one.
        valid: False when the device itself says that it has no value (lead off, probe off).
        status: HL7 observation status or its like; empty means final.
    """

    code: str
    value: float | str | None
    system: str = ""
    unit: str = ""
    channel: str = ""
    valid: bool = True
    status: str = ""

    @property
    def what(self) -> str:
        """What names this kind of reading in the quarantine: never its value."""
        system, unit = f"^{self.system}" if self.system else "", f" [{self.unit}]" if self.unit else ""
        return shown(f"{self.code}{system}{unit}")


@dataclass(frozen=True, slots=True)
class Measured:
    """A reading that is understood.

    Attributes:
        field: name in the record, for instance `heart_rate`.
        value: in `unit`; NaN where the device says that it has none.
        unit: UCUM code.
        metric: MDC reference id; empty for a local code.
    """

    field: str
    value: float
    unit: str
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A reading that is not understood."""

    reason: Reason
    what: str


def shown(text: str) -> str:
    """Text from outside as one bounded line: what does not print becomes a question mark."""
    clean = "".join(mark if mark.isprintable() else "?" for mark in text[: MAX_WHAT_CHARS + 1])
    clean = unicodedata.normalize("NFC", clean)
    return clean if len(clean) <= MAX_WHAT_CHARS else clean[: MAX_WHAT_CHARS - 1] + "\u2026"
