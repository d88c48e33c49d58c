"""What a message observes: the OBX segments of every person in it, as readings by time and as waveforms.

An OBX becomes a reading, belongs to a waveform, or is left out with a reason; none is forgotten. Its time is OBX-14,
else OBR-7 of its order, else the message's.

Source: HL7 v2.6 chapter 7 (7.4.1 OBR, 7.4.2 OBX); IHE Devices Technical Framework volume 2, PCD-01 and appendix B.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from bedside.agent.formats.hl7.adt import place_of
from bedside.agent.formats.hl7.message import MAX_PARTS, NULL, PERSON, Message, Segment
from bedside.agent.formats.hl7.whose import NOBODY, Whose, whose
from bedside.core.errors import MalformedError
from bedside.core.vocabulary.mdc import contradicted
from bedside.core.vocabulary.reading import Reading, Reason

MAX_READINGS: Final = 2_000
"""Readings of one message: they take 60 ms of a desktop's core, in which no other sample is looked at."""
ARRAYS: Final = frozenset({"NA", "MA"})
"""Types of OBX-5 that hold a waveform."""
_TEXTS: Final = frozenset({"", "ST", "TX", "FT", "CE", "CWE", "CF", "CNE", "IS", "ID"})
_FIRST_SYSTEMS: Final = ("MDC", "LN")
_INVALID: Final = frozenset({"INV", "NAV", "OFF", "CALIB"})
_MEASURED: Final = frozenset({"", "F", "R"})
"""OBX-11 of a waveform that is one: final, or as the device sent it; of numbers, the vocabulary says it."""
_SIMULATED: Final = frozenset({"DEMO", "TEST"})


@dataclass(frozen=True, slots=True)
class Code:
    """One triplet of a coded element: identifier, text and coding system."""

    code: str
    text: str
    system: str

    @property
    def name(self) -> str:
        """The identifier, or the text where that is absent (`^MDC_ECG_HEART_RATE^MDC`, `0^MDC_ATTR_SAMP_RATE^MDC`)."""
        return self.code if self.code not in ("", "0") else self.text


@dataclass(frozen=True, slots=True)
class Observation:
    """One OBX.

    Attributes:
        kind: OBX-2.
        codes: OBX-3, the triplet and its alternate.
        channel: OBX-4.
        values: OBX-5, repetitions as they were sent.
        units: OBX-6, as `codes`.
        flags: OBX-8.
        status: OBX-11.
        time: OBX-14 or OBR-7 or MSH-7; empty when none was sent.
        order: which OBR it stands under.
        segment: where it was read.
    """

    kind: str
    codes: tuple[Code, ...]
    channel: str
    values: tuple[str, ...]
    units: tuple[Code, ...]
    flags: frozenset[str]
    status: str
    time: str
    order: int
    segment: Segment

    def code(self, wanted: Collection[str] = ()) -> Code:
        """The triplet that is wanted, else that of a known system, else the first."""
        for code in self.codes:
            if code.name in wanted:
                return code
        return _preferred(self.codes)

    def contradicts(self, wanted: Collection[str] = ()) -> bool:
        """Whether its codes are of different quantities, or a number and its reference id are.

        Where a configuration names one of them, that one counts.
        """
        chosen = self.code(wanted)
        references = [(code.text, code.system) for code in self.codes if code.text.startswith("MDC_")]
        others = [*((code.name, code.system) for code in self.codes), *references]
        return chosen.name not in wanted and contradicted(chosen.name, chosen.system, others)

    @property
    def unit(self) -> str:
        """The unit as it was sent: of the MDC or UCUM triplet, where there are two."""
        return _preferred(self.units, ("UCUM", "MDC")).name

    @property
    def is_measured(self) -> bool:
        """Whether it is what a sensor measured: no correction or deletion, and not called invalid by its device."""
        return self.status in _MEASURED and _INVALID.isdisjoint(self.flags)

    @property
    def is_simulated(self) -> bool:
        """Whether its device says that it shows a demonstration."""
        return not _SIMULATED.isdisjoint(self.flags)

    @property
    def is_description(self) -> bool:
        """Whether it tells of a device and has no value by its nature (PCD-01: MDS, VMD and channel levels)."""
        return not self.kind and not self.values


@dataclass(frozen=True, slots=True)
class Moment:
    """Readings of one time.

    Attributes:
        time_ns: nanoseconds since 1970.
        readings: in the order in which they were sent.
        simulated: whether a device said that it shows a demonstration.
    """

    time_ns: int
    readings: list[Reading] = field(default_factory=list)
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Visit:
    """What a message says of one person.

    Attributes:
        place: PV1-3; empty when none was sent.
        observations: every OBX.
        whose: the person, as far as the message tells them apart.
    """

    place: str
    observations: tuple[Observation, ...]
    whose: Whose = NOBODY


def visits(message: Message) -> list[Visit]:
    """The observations of every person in a message; a place holds for its own person alone.

    A PID or PV1 that comes again begins another person, and so does a PID behind observations: who has none of their
    own PV1 has no place.

    Raises:
        MalformedError: `hl7-size`.
    """
    if sum(segment.name == "OBX" for segment in message.segments) > MAX_READINGS:
        raise MalformedError("hl7-size", f"a message of HL7 has more than {MAX_READINGS} observations")
    people: list[list[Segment]] = [[]]
    told: set[str] = set()
    for segment in message.segments:
        again = segment.name in (PERSON, "PV1") and segment.name in told
        if again or (segment.name == PERSON and "OBX" in told):
            people.append([])
            told.clear()
        told.add(segment.name)
        people[-1].append(segment)
    found = [_visit(person, message.header.time) for person in people]
    if sum(max(1, len(one.values)) for visit in found for one in visit.observations) > MAX_READINGS:
        raise MalformedError("hl7-size", f"a message of HL7 has more than {MAX_READINGS} readings")
    return found


def moments(
    observations: Collection[Observation], place: Callable[[str], int], wanted: Collection[str] = ()
) -> tuple[list[Moment], list[tuple[Reason, str]]]:
    """The readings of observations that are no waveforms, by time, and a reason and a name for each that is none.

    Args:
        observations: of one visit.
        place: gives a DTM in nanoseconds since 1970, and a time for an empty one; MalformedError for one that is none.
        wanted: codes that a configuration names; they are preferred where an OBX carries two.
    """
    by_time: dict[tuple[int, bool], Moment] = {}
    left: list[tuple[Reason, str]] = []
    for observation in observations:
        if observation.is_description or observation.kind not in _TEXTS | {"NM", "SN"}:
            left += [(Reason.NOT_WANTED, one.what) for one in readings_of(observation, wanted)]
            continue
        if observation.contradicts(wanted):
            left += [(Reason.AMBIGUOUS, one.what) for one in readings_of(observation, wanted)]
            continue
        try:
            at_ns = place(observation.time)
        except MalformedError:
            left += [(Reason.BAD_TIME, one.what) for one in readings_of(observation, wanted)]
            continue
        simulated = observation.is_simulated
        moment = by_time.setdefault((at_ns, simulated), Moment(at_ns, simulated=simulated))
        moment.readings.extend(readings_of(observation, wanted))
    return sorted(by_time.values(), key=lambda one: one.time_ns), left


def readings_of(observation: Observation, wanted: Collection[str] = ()) -> Iterator[Reading]:
    """One reading for each repetition of OBX-5, and one without a value where there is none."""
    code = observation.code(wanted)
    for value in observation.values or ("",):
        yield Reading(
            code=code.name,
            value=_value(observation, value),
            system=code.system,
            unit=observation.unit,
            channel=observation.channel,
            valid=_INVALID.isdisjoint(observation.flags),
            status=observation.status,
        )


def _value(observation: Observation, sent: str) -> str | None:
    """The whole of it: a number beside which something else stands is no number."""
    if observation.kind == "SN":  # structured numeric: comparator, number, separator, number
        parts = observation.segment.numbers_of(sent)
        if len(parts) > 1 and parts[0] in ("", "=") and not any(parts[2:]):
            return parts[1] or None
    value = observation.segment.delimiters.unescape(sent).strip()
    return None if value in ("", NULL) else value


def _visit(person: list[Segment], message_time: str) -> Visit:
    place = next((place_of(segment) for segment in person if segment.name == "PV1"), "")
    observations: list[Observation] = []
    order, order_time = 0, ""
    for segment in person:
        if segment.name == "OBR":
            order, order_time = order + 1, segment.text(7)
        elif segment.name == "OBX":
            observations.append(_observation(segment, order, order_time or message_time))
    return Visit(place, tuple(observations), whose(person))


def _observation(segment: Segment, order: int, time: str) -> Observation:
    if segment.raw(5).count(segment.delimiters.component) >= MAX_PARTS:  # known before anything is made of it
        raise MalformedError("hl7-size", f"an observation of HL7 has more than {MAX_PARTS} parts")
    return Observation(
        kind=segment.text(2).upper(),
        codes=_codes(segment.components(3)),
        channel=segment.text(4),
        values=tuple(segment.repetitions(5)),
        units=_codes(segment.components(6)),
        flags=frozenset(segment.components_of(one)[0].upper() for one in segment.repetitions(8) if one),
        status=segment.text(11).upper(),
        time=segment.text(14) or time,
        order=order,
        segment=segment,
    )


def _codes(parts: list[str]) -> tuple[Code, ...]:
    padded = [part.strip() for part in parts[:6]] + [""] * 6
    first, other = Code(*padded[:3]), Code(*padded[3:6])
    return tuple(code for code in (first, other) if code.name) or (first,)


def _preferred(codes: tuple[Code, ...], systems: tuple[str, ...] = _FIRST_SYSTEMS) -> Code:
    return next((code for system in systems for code in codes if code.system.upper() == system), codes[0])
