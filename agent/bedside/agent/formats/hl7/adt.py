"""Who comes to a bed and who leaves it: ADT A01, A02 and A03, and A11, A12 and A13, which take them back.

What is taken back is not undone, for what was measured meanwhile is somebody's: an admission that never was ends its
session, a discharge that never was opens another, and a transfer that never was is one back to PV1-3.

Source: HL7 v2.6 chapter 3 (3.3.1 to 3.3.3 and 3.3.11 to 3.3.13; EVN, PV1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bedside.agent.formats.hl7.message import Message, Segment
from bedside.core.samples import MarkKind

PLACE_PARTS: Final = 9
"""Components of PL, HL7 v2.6 chapter 2A.53, that name a place: point of care, room, bed, facility, and so on."""

_COMES: Final = {"ADT^A01": False, "ADT^A13": True}
_LEAVES: Final = {"ADT^A03": False, "ADT^A11": True}
_TRANSFERS: Final = frozenset({"ADT^A02", "ADT^A12"})
MOVES: Final = _COMES.keys() | _LEAVES.keys() | _TRANSFERS
"""Messages that open or close sessions."""
LEAVES: Final = _LEAVES.keys()
"""Those that only close them."""


@dataclass(frozen=True, slots=True)
class Move:
    """Somebody comes to a place, or leaves it.

    Attributes:
        kind: SESSION_OPEN or SESSION_CLOSE.
        place: as `place_of` gives it.
        takes_back: whether it says that what was told before never was.
    """

    kind: MarkKind
    place: str
    takes_back: bool = False


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
    if kind in _COMES:
        return (Move(MarkKind.SESSION_OPEN, here, _COMES[kind]),)
    if kind in _LEAVES:
        return (Move(MarkKind.SESSION_CLOSE, here, _LEAVES[kind]),)
    if kind in _TRANSFERS and here != before:
        return (Move(MarkKind.SESSION_CLOSE, before), Move(MarkKind.SESSION_OPEN, here))
    return ()


def moved_at(message: Message) -> str:
    """When it happened (EVN-6), else when that was written down (EVN-2), else when the message was made: a DTM."""
    event = message.first("EVN")
    told = (event.text(6) or event.text(2)) if event is not None else ""
    return told or message.header.time
