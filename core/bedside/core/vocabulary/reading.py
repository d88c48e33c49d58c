"""What a device said, before anybody believes it, and what becomes of it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bedside.core.vocabulary.mdc import is_unit_code, unit_term
from bedside.core.vocabulary.ucum import is_unit

MAX_WHAT_CHARS: Final = 124
"""Characters that name a kind of reading in the quarantine: a code, its system and a unit."""
MAX_CODE_CHARS: Final = 56
MAX_SYSTEM_CHARS: Final = 32
MAX_UNIT_CHARS: Final = 32

_CODE_MARKS: Final = r"A-Za-z0-9_./:%#*+\-"
_UNIT_MARKS: Final = _CODE_MARKS + r"\[\](){}'\u00b0\u00b5\u03bc"
_HIDDEN: Final = r"\((?:no code|text of \d{1,4} characters)\)"
_CODE: Final = re.compile(rf"[{_CODE_MARKS}]{{1,{MAX_CODE_CHARS}}}")
_SYSTEM: Final = re.compile(rf"[{_CODE_MARKS}]{{1,{MAX_SYSTEM_CHARS}}}")
_UNIT: Final = re.compile(rf"(?:[{_UNIT_MARKS}]|(?<=[0-9])\^){{1,{MAX_UNIT_CHARS}}}")
_WHAT: Final = re.compile(
    rf"(?:(?P<code>{_CODE.pattern})|{_HIDDEN})(?:\^(?:(?P<system>{_SYSTEM.pattern})|{_HIDDEN}))?"
    rf"(?: \[(?:(?P<unit>{_UNIT.pattern})|{_HIDDEN})\])?"
)
_LIKE_A_CODE: Final = re.compile(r".*[0-9_/:%#*+].*|[A-Z][A-Z.\-]{0,7}|[a-z.\-]+")
"""A digit or a mark that no name has, a short abbreviation, or small letters alone. One capitalised word is a name more
often than a code."""
_WORDS: Final = frozenset({"Temp", "Pulse", "Puls", "Resp", "HeartRate", "PulseRate", "RespRate"})
"""Codes of devices that look like a name."""
_TYPED: Final = frozenset({"FHIR"})
"""Systems whose codes are types of resources."""


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
    DUPLICATE = "duplicate"
    """The same value of one quantity at one time again: it is stored once."""
    BAD_STATUS = "bad-status"
    """A correction, a deletion or a preliminary result: not what a sensor measured now."""
    BAD_TIME = "bad-time"
    UNKNOWN_PLACE = "unknown-place"
    """A bed, device or topic that the configuration gives no stream."""
    NOT_WANTED = "not-wanted"
    """Of a form that no stream takes: an image, a document, a device's description."""
    RULED_OUT = "ruled-out"
    """Known, but the field belongs to a rule of the configuration that takes another code, system or channel."""


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
        system = f"^{as_system(self.system)}" if self.system else ""
        return as_code(self.code) + system + (f" [{as_unit(self.unit)}]" if self.unit else "")


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


def as_code(text: str) -> str:
    """Text from outside where a code should be, if it has the form of one; else how long it is.

    A sloppy sender puts words there, and a patient's name is made of words: blanks, commas, carets and letters beyond
    ASCII are in no code, and a capitalised word alone is none that is shown.
    """
    return text if _CODE.fullmatch(text) and _is_like_a_code(text) else _hidden(text)


def as_system(text: str) -> str:
    """As `as_code`, of a coding system."""
    return text if _SYSTEM.fullmatch(text) else _hidden(text)


def as_unit(text: str) -> str:
    """As `as_code`, of a unit, if it is one: UCUM, MDC, a word of devices. Anything else may be a person's number."""
    return text if _UNIT.fullmatch(text) and _is_known_unit(text) else _hidden(text)


def as_what(text: str) -> str:
    """What the quarantine keeps of a `what`, whoever made it: code, `^` and system, a blank and `[unit]`.

    Anything else could be anything, so that only its length is kept.
    """
    found = _WHAT.fullmatch(text) if len(text) <= MAX_WHAT_CHARS else None
    if found is None:
        return _hidden(text)
    code, system, unit = found["code"], found["system"], found["unit"]
    shows_code = code is None or system in _TYPED or _is_like_a_code(code)
    return text if shows_code and (unit is None or _is_known_unit(unit)) else _hidden(text)


def _is_like_a_code(text: str) -> bool:
    return text in _WORDS or _LIKE_A_CODE.fullmatch(text) is not None


def _is_known_unit(text: str) -> bool:
    return is_unit(text) or unit_term(text) is not None or is_unit_code(text)


def _hidden(text: str) -> str:
    return f"(text of {min(len(text), 9_999)} characters)" if text else "(no code)"
