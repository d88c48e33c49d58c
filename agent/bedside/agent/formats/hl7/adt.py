"""Who comes to a bed and who leaves it: ADT A01, A02 and A03.

Source: HL7 v2.6 chapter 3 (3.3.1 to 3.3.3; EVN, PV1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bedside.agent.formats.hl7.message import Message, Segment
from bedside.core.samples import MarkKind

PLACE_PARTS: Final = 9
"""Components of PL, HL7 v2.6 chapter 2A.53, that name a place: point of care, room, bed, facility, and so on."""

_ADMIT, _TRANSFER, _DISCHARGE = "ADT^A01", "ADT^A02", "ADT^A03"
MOVES: Final = frozenset({_ADMIT, _TRANSFER, _DISCHARGE})
"""Messages that open or close sessions."""


@dataclass(frozen=True, slots=True)
class Move:
    """Somebody comes to a place, or leaves it.

    Attributes:
        kind: SESSION_OPEN or SESSION_CLOSE.
        place: as `place_of` gives it.
    """

    kind: MarkKind
    place: str


def place_of(segment: Segment | None, number: int = 3) -> str:
    """A place of PV1 (3 assigned, 6 prior): its components joined with ^; empty when none was sent.

    Raises:
        MalformedError: `hl7-size`.
    """
    parts = segment.components(number)[:PLACE_PARTS] if segment is not None else []
    return "^".join(part.strip() for part in parts).rstrip("^")


def moves(message: Message) -> tuple[Move, ...]:
    """What a message moves, who leaves first; nothing where it is of another type, or within one place.

    Raises:
        MalformedError: `hl7-size`.
    """
    kind, visit = message.header.kind, message.first("PV1")
    here, before = place_of(visit), place_of(visit, 6)
    if kind == _ADMIT:
        return (Move(MarkKind.SESSION_OPEN, here),)
    if kind == _DISCHARGE:
        return (Move(MarkKind.SESSION_CLOSE, here),)
    if kind == _TRANSFER and here != before:
        return (Move(MarkKind.SESSION_CLOSE, before), Move(MarkKind.SESSION_OPEN, here))
    return ()


def moved_at(message: Message) -> str:
    """When it happened (EVN-6), else when that was written down (EVN-2), else when the message was made: a DTM."""
    event = message.first("EVN")
    told = (event.text(6) or event.text(2)) if event is not None else ""
    return told or message.header.time
