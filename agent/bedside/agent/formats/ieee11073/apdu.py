"""APDUs of personal health devices (ISO/IEEE 11073-20601), as a gateway hands them on: what an agent says.

An observation names its object by a handle, and only the configuration says what that is. A reader therefore remembers
what devices announce: one reader for one device.

Invariants:
    * Sizes and counts are checked before anything is read; `MalformedError` is the only error.
    * A report about an object that no configuration describes is left out, never guessed.

Source: ISO/IEEE 11073-20601 clauses 7 and 8, annexes A and F (MDER).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from bedside.agent.formats.delivery import Delivery
from bedside.agent.formats.ieee11073.mder import MderCursor
from bedside.agent.formats.ieee11073.objects import (
    STANDARD,
    Attribute,
    Configuration,
    MeasuredObject,
    attributes,
    read_configuration,
)
from bedside.agent.formats.ieee11073.values import observe
from bedside.core.errors import MalformedError
from bedside.core.vocabulary.reading import Reason, Unusable

MAX_APDU_BYTES: Final = 64_512
"""Of the largest APDU that an agent may send (8.4.3.2)."""
MAX_CONFIGURATIONS: Final = 16
"""Remembered; the oldest is forgotten."""


class _Kind(IntEnum):
    AARQ = 0xE200
    AARE = 0xE300
    RLRQ = 0xE400
    RLRE = 0xE500
    ABRT = 0xE600
    PRST = 0xE700


_PHD_PROTOCOL: Final = 0x5079
_EVENT_REPORTS: Final = frozenset({0x0100, 0x0101})
_NOTI_CONFIG: Final = 3356
_FIXED: Final = frozenset({3357, 3363, 3369})
_VARIABLE: Final = frozenset({3358, 3362, 3368})
_PERSONS_FIXED: Final = frozenset({3359, 3366, 3372})
_PERSONS_VARIABLE: Final = frozenset({3360, 3365, 3371})
_ANYBODY: Final = 0xFFFF

_ANSWERS: Final = {
    0: "accepted",
    1: "rejected for good",
    2: "rejected for now",
    3: "accepted, configuration unknown",
    4: "rejected, no common protocol",
    5: "rejected, no common parameters",
    6: "rejected, reason unknown",
    7: "rejected, not authorised",
    8: "rejected, association version not supported",
}
_ENDS: Final = {_Kind.RLRQ: "asks to end the association", _Kind.RLRE: "association ended", _Kind.ABRT: "aborts"}
_OPERATIONS: Final = {
    0x0103: "asks for attributes",
    0x0104: "sets attributes",
    0x0105: "sets attributes, wants an answer",
    0x0106: "asks for an action",
    0x0107: "asks for an action, wants an answer",
    0x0201: "answers a report",
    0x0203: "answers with attributes",
    0x0205: "answers that attributes are set",
    0x0207: "answers that an action is done",
    0x0300: "answers with an error",
    0x0400: "rejects a message",
}


class ApduReader:
    """Reads the APDUs of one device, in their order."""

    def __init__(self, configuration: int = 0) -> None:
        """Prepare.

        Args:
            configuration: of a device whose association is not seen, one of `STANDARD`; 0 for none.
        """
        self._known: dict[tuple[bytes, int], Configuration] = {}
        self._system = b""
        self._objects = STANDARD.get(configuration)

    def read(self, data: bytes) -> Delivery:
        """Read one APDU.

        Raises:
            MalformedError: `bad-apdu`.
        """
        if len(data) > MAX_APDU_BYTES:
            raise MalformedError("bad-apdu", f"an APDU of {len(data)} bytes; {MAX_APDU_BYTES} at most")
        cursor = MderCursor(data)
        choice, inside = cursor.unsigned(2), MderCursor(cursor.octets())
        cursor.end()
        match choice:
            case _Kind.AARQ:
                return Delivery(event=self._associate(inside))
            case _Kind.AARE:
                return Delivery(event=f"association {_ANSWERS.get(inside.unsigned(2), 'answered in unknown words')}")
            case _Kind.RLRQ | _Kind.RLRE | _Kind.ABRT:
                self._objects = None
                return Delivery(event=f"{_ENDS[_Kind(choice)]}, reason {inside.unsigned(2)}")
            case _Kind.PRST:
                return self._present(inside)
            case _:
                raise MalformedError("bad-apdu", f"an APDU of the unknown kind {choice:#06x}")

    def _associate(self, cursor: MderCursor) -> str:
        """AARQ: which configuration the device has."""
        self._objects = None
        cursor.unsigned(4)  # version of the procedure
        for item in cursor.items():
            protocol, info = item.unsigned(2), MderCursor(item.octets())
            if protocol != _PHD_PROTOCOL:
                continue
            info.take(18)  # versions, encoding rules, functional units, type
            self._system = info.octets()
            configuration = info.unsigned(2)
            self._objects = self._known.get((self._system, configuration), STANDARD.get(configuration))
            known = "" if self._objects else ", which is not known yet"
            return f"asks to associate with configuration {configuration}{known}"
        return "asks to associate by another protocol"

    def _present(self, cursor: MderCursor) -> Delivery:
        """PRST: one data APDU in an octet string."""
        inside = MderCursor(cursor.octets())
        inside.unsigned(2)  # invoke id
        operation, argument = inside.unsigned(2), MderCursor(inside.octets())
        inside.end()
        if operation not in _EVENT_REPORTS:
            if operation not in _OPERATIONS:
                raise MalformedError("bad-apdu", f"a data APDU of the unknown operation {operation:#06x}")
            return Delivery(event=_OPERATIONS[operation])
        argument.take(6)  # handle of the device or scanner, relative time
        event, info = argument.unsigned(2), MderCursor(argument.octets())
        argument.end()
        return self._configure(info) if event == _NOTI_CONFIG else self._scan(event, info)

    def _configure(self, cursor: MderCursor) -> Delivery:
        configuration = cursor.unsigned(2)
        self._objects = read_configuration(cursor)
        self._known[self._system, configuration] = self._objects
        if len(self._known) > MAX_CONFIGURATIONS:
            del self._known[next(iter(self._known))]
        return Delivery(event=f"announces configuration {configuration} of {len(self._objects)} objects")

    def _scan(self, event: int, cursor: MderCursor) -> Delivery:
        delivery = Delivery()
        if event in _FIXED | _VARIABLE:
            cursor.take(4)  # request, number of the report
            self._observations(cursor, delivery, fixed=event in _FIXED)
        elif event in _PERSONS_FIXED | _PERSONS_VARIABLE:
            cursor.take(4)
            for person in cursor.items():
                self._person(person, delivery, fixed=event in _PERSONS_FIXED)
        else:
            delivery.left.append(Unusable(Reason.NOT_WANTED, f"report-{event}^20601"))
        return delivery

    def _person(self, cursor: MderCursor, delivery: Delivery, *, fixed: bool) -> None:
        """Observations of one of several users of a device: of whom nobody knows which bed is theirs."""
        if cursor.unsigned(2) == _ANYBODY:
            self._observations(cursor, delivery, fixed=fixed)
            return
        theirs = Delivery()
        self._observations(cursor, theirs, fixed=fixed)
        delivery.left += theirs.left
        for readings in theirs.readings.values():
            delivery.left += [Unusable(Reason.UNKNOWN_PLACE, reading.what) for reading in readings]

    def _observations(self, cursor: MderCursor, delivery: Delivery, *, fixed: bool) -> None:
        for item in cursor.items():
            handle = item.unsigned(2)
            found = (self._objects or {}).get(handle)
            values = item.octets() if fixed else b""
            observed = [] if fixed else attributes(item)
            if found is None and (fixed or not any(attribute == Attribute.ID_TYPE for attribute, _ in observed)):
                delivery.left.append(Unusable(Reason.UNKNOWN_CODE, f"object-{handle}^20601"))
                continue
            measured = found or MeasuredObject(handle)
            observe(measured, _laid_out(measured, values) if fixed else observed, delivery)


def _laid_out(measured: MeasuredObject, data: bytes) -> list[tuple[int, bytes]]:
    """The attributes of an observation in the fixed form; it may end before its last ones."""
    cursor, found = MderCursor(data), []
    for attribute, size in measured.layout:
        if not cursor.left:
            break
        found.append((attribute, cursor.take(size)))
    cursor.end()
    return found
