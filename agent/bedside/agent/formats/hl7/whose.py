"""Who a message is about, so that two can be told apart and neither can be known.

A number of a visit or of a patient becomes a keyed hash where its segment is read; the number itself is kept nowhere.
The key lives as long as the process.

Source: HL7 v2.6 chapter 3 (PID-3, PV1-19); RFC 7693 (BLAKE2b with a key).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple

from bedside.agent.formats.hl7.message import PERSON, Segment

_DIGEST_BYTES: Final = 16


class Whose(NamedTuple):
    """Hashes of PV1-19 and PID-3; empty where the message has none."""

    visit: str = ""
    patient: str = ""

    def is_another(self, other: Whose) -> bool:
        """Whether the two are certainly not of one person's stay: visits count first, then patients."""
        return self._compared(other) is False

    def is_same(self, other: Whose) -> bool:
        """Whether the two certainly are."""
        return self._compared(other) is True

    def _compared(self, other: Whose) -> bool | None:
        pairs = ((self.visit, other.visit), (self.patient, other.patient))
        return next((one == another for one, another in pairs if one and another), None)


NOBODY: Final = Whose()
"""Who is not told apart from anybody."""


class Pseudonyms:
    """Makes hashes of numbers; those of two keys have nothing in common."""

    def __init__(self, key: bytes) -> None:
        """Take a key of 16 to 64 random bytes."""
        self._key = key

    def of(self, sort: str, number: str) -> str:
        """The hash of a number; empty for an empty one. A visit's and a patient's of one number differ."""
        number = number.strip()
        if not number:
            return ""
        data = number.encode("utf-8", "surrogatepass")
        return blake2b(data, key=self._key, person=sort.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def whose(segments: Iterable[Segment]) -> Whose:
    """Who the first PID and PV1 of these are about; their numbers are hashes already."""
    visit = patient = ""
    for segment in segments:
        if segment.name == "PV1":
            visit = visit or segment.raw(19)
        elif segment.name == PERSON:
            patient = patient or segment.raw(3)
    return Whose(visit, patient)
