"""FHIR R4 observations, alone and in bundles, in JSON and in XML, as readings.

Invariants:
    * Of a patient nothing is read but whether all observations of a bundle are of the same one, by reference or by
      identifier; observations of several are left out, for a stream is one bed. So are those that name none where
      others name one. What names a patient is compared, and neither kept nor told.
    * Other resources are told by their type and never looked into.
    * Size and counts are checked first; one unreadable resource of a bundle leaves the others.
    * A document in which an object has a name twice is not read: nobody can say which of two values is meant.

Source: FHIR R4 (Observation, Bundle, 2.24 data types); HL7 PHD and PoCD implementation guides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from bedside.agent.formats.delivery import Delivery, Moment
from bedside.agent.formats.fhir.xml import xml_tree
from bedside.agent.formats.json_names import has_repeated_names
from bedside.core.errors import MalformedError
from bedside.core.unreadable import UNREADABLE
from bedside.core.vocabulary.mdc import contradicted, system_of, term_of, unit_term, units_contradict
from bedside.core.vocabulary.reading import Reading, Reason, Unusable, as_what

MAX_FHIR_BYTES: Final = 4 << 20
MAX_ENTRIES: Final = 10_000
MAX_VALUES: Final = 400_000
"""Values and brackets of one JSON document: forty of each entry."""

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:(\.\d{1,6})\d{0,12})?(Z|[+-]\d\d:\d\d)?", re.ASCII
)  # fmt: skip
_INFINITE: Final = {"positive-infinity": math.inf, "negative-infinity": -math.inf}
_UCUM: Final = "http://unitsofmeasure.org"


class _Read(msgspec.Struct, rename="camel"):
    """What is read of a resource; all else is skipped."""


class _Coding(_Read):
    system: str = ""
    code: str = ""


class _Concept(_Read):
    coding: list[_Coding] = []


class _Quantity(_Read):
    value: float | str | None = None
    comparator: str = ""
    unit: str = ""
    system: str = ""
    code: str = ""


class _Period(_Read):
    start: str = ""
    end: str = ""


class _Identifier(_Read):
    system: str = ""
    value: str = ""


class _Reference(_Read):
    reference: str = ""
    identifier: _Identifier | None = None

    @property
    def names(self) -> tuple[str, str, str]:
        """All by which a person is named; empty texts where nobody is."""
        named = self.identifier or _Identifier()
        return self.reference, named.system if named.value else "", named.value


class _Component(_Read):
    code: _Concept = msgspec.field(default_factory=_Concept)
    value_quantity: _Quantity | None = None
    value_integer: float | str | None = None
    value_string: str | None = None
    data_absent_reason: _Concept | None = None


class _Observation(_Component):
    status: str = ""
    effective_date_time: str = ""
    effective_instant: str = ""
    effective_period: _Period | None = None
    effective_timing: dict[str, Any] | None = None
    subject: _Reference | None = None
    component: list[_Component] = []


class _Entry(_Read):
    resource: msgspec.Raw = msgspec.Raw()


class _Head(_Read):
    resource_type: str = ""
    entry: list[_Entry] = []


class _Type(_Read):
    resource_type: str = ""


def read_fhir(data: bytes, wanted: Collection[str] = ()) -> Delivery:
    """Read a resource.

    Args:
        data: an Observation, a Bundle or another resource, in JSON or XML.
        wanted: codes that a configuration names; they are preferred where something has several.

    Raises:
        MalformedError: `bad-fhir`.
    """
    if len(data) > MAX_FHIR_BYTES:
        raise MalformedError("bad-fhir", f"a resource of {len(data)} bytes; {MAX_FHIR_BYTES} at most")
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    try:
        found = list(_xml(text) if text[:1] == b"<" else _json(text))
    except UNREADABLE as error:
        raise MalformedError("bad-fhir", "a resource that is no FHIR") from error
    delivery = Delivery()
    patients = {(one.subject or _Reference()).names for _, one in found if one is not None}
    for kind, observation in found:
        if observation is not None:
            _observe(observation, frozenset(wanted), delivery)
        else:
            reason = Reason.BAD_MESSAGE if kind == "Observation" else Reason.NOT_WANTED
            delivery.left.append(Unusable(reason, as_what(f"{kind}^FHIR")))
    if len(patients) > 1:
        for readings in delivery.readings.values():
            delivery.left += [Unusable(Reason.UNKNOWN_PLACE, reading.what) for reading in readings]
        delivery.readings.clear()
    return delivery


_Found = tuple[str, _Observation | None]
"""Type of a resource, and what is read of it."""


def _json(text: bytes) -> Iterator[_Found]:
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
        raise MalformedError("bad-fhir", f"a resource of more than {MAX_VALUES} values")
    if has_repeated_names(text, msgspec.json.decode(text)):
        raise MalformedError("bad-fhir", "a resource in which an object has a name twice")
    head = msgspec.json.decode(text, type=_Head)
    if head.resource_type == "Bundle":
        for entry in _bounded(head.entry):
            if not bytes(entry.resource):
                continue
            kind = msgspec.json.decode(entry.resource, type=_Type).resource_type
            yield kind, _json_observation(entry.resource) if kind == "Observation" else None
    elif head.resource_type == "Observation":
        yield "Observation", msgspec.json.decode(text, type=_Observation)
    elif head.resource_type:
        yield head.resource_type, None
    else:
        raise MalformedError("bad-fhir", "a document that is no FHIR resource")


def _json_observation(text: msgspec.Raw) -> _Observation | None:
    try:
        return msgspec.json.decode(text, type=_Observation)
    except UNREADABLE:
        return None


def _xml(text: bytes) -> Iterator[_Found]:
    tree = xml_tree(text)
    if tree["resourceType"] == "Bundle":
        for entry in _bounded(tree.get("entry", [])):
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if isinstance(resource, dict) and (kind := resource.get("resourceType", "")):
                yield kind, _xml_observation(resource) if kind == "Observation" else None
    elif tree["resourceType"] == "Observation":
        yield "Observation", msgspec.convert(tree, _Observation, strict=False)
    else:
        yield tree["resourceType"], None


def _xml_observation(tree: dict[str, Any]) -> _Observation | None:
    try:
        return msgspec.convert(tree, _Observation, strict=False)
    except UNREADABLE:
        return None


def _bounded(entries: list[Any]) -> list[Any]:
    if len(entries) > MAX_ENTRIES:
        raise MalformedError("bad-fhir", f"a bundle of {len(entries)} entries; {MAX_ENTRIES} at most")
    return entries


def _observe(observation: _Observation, wanted: frozenset[str], delivery: Delivery) -> None:
    moment, status = _moment(observation), observation.status or "unknown"
    parts: list[_Component] = [*observation.component]
    if _has_value(observation) or not parts:
        parts.insert(0, observation)
    for part in parts:
        code, system = _coding(part.code, wanted)
        named = Reading(code, None, system.rsplit("/", 1)[-1]).what  # the address of a system is too long for a name
        if reason := _fault(part, code, system, wanted):
            delivery.left.append(Unusable(reason, named))
            continue
        value, unit = _value(part)
        if unit is None:
            delivery.left.append(Unusable(Reason.UNKNOWN_UNIT, named))
            continue
        valid = value is not None
        delivery.add(moment, [Reading(code, value, system, unit, valid=valid, status=status)])


def _fault(part: _Component, code: str, system: str, wanted: frozenset[str]) -> Reason | None:
    """Why it is no reading: it says nothing, or contradicts itself."""
    if not _has_value(part):
        return Reason.NOT_WANTED
    if part.data_absent_reason is not None and _says(part):  # FHIR's obs-6: one of the two
        return Reason.BAD_MESSAGE
    if code not in wanted and contradicted(code, system, {(one.code, one.system) for one in part.code.coding}):
        return Reason.AMBIGUOUS
    return None


def _has_value(part: _Component) -> bool:
    """Whether it says a number, a text that may be one, or that there is none."""
    return any(one is not None for one in (part.value_quantity, part.value_integer, part.value_string)) or (
        part.data_absent_reason is not None
    )


def _says(part: _Component) -> bool:
    quantity = part.value_quantity
    said = (quantity.value if quantity is not None else None, part.value_integer, part.value_string)
    return any(one is not None for one in said)


def _value(part: _Component) -> tuple[float | str | None, str | None]:
    """Value and unit; None for a unit that nobody can tell."""
    if (quantity := part.value_quantity) is not None and quantity.value is not None:
        value = f"{quantity.comparator}{quantity.value}" if quantity.comparator else quantity.value
        return value, _unit(quantity)
    if part.value_integer is not None:
        return part.value_integer, ""
    if part.value_string is not None:
        return part.value_string, ""
    absent = part.data_absent_reason.coding if part.data_absent_reason else []
    return next((_INFINITE[one.code] for one in absent if one.code in _INFINITE), None), ""


def _unit(quantity: _Quantity) -> str | None:
    """The code where it is UCUM's or MDC's, else the words, unless the two contradict each other.

    A code without a system is read as words are. One of another system alone says nothing, and is None.
    """
    code, system = quantity.code, quantity.system
    if not code or system == _UCUM or (system_of(system) == "MDC" and unit_term(code)):
        return code or quantity.unit
    if quantity.unit:
        return None if units_contradict(code, quantity.unit) else quantity.unit
    return None if system else code


def _coding(concept: _Concept, wanted: frozenset[str]) -> tuple[str, str]:
    """Code and system: one that is wanted, else of the nomenclature if it is known, of LOINC if that is, the first."""
    codings = [(one.code, system_of(one.system)) for one in concept.coding if one.code]

    def rank(coding: tuple[str, str]) -> tuple[bool, bool, bool]:
        return coding[0] not in wanted, term_of(*coding) is None, coding[1] != "MDC"

    return min(codings, key=rank, default=("", ""))


def _moment(observation: _Observation) -> Moment:
    """When it was measured; a period counts by its end, when the value was known."""
    period = observation.effective_period
    told = observation.effective_date_time or observation.effective_instant
    told = told or (period.end or period.start if period else "")
    if not told:
        return Moment(bad=period is not None or observation.effective_timing is not None)
    match = _TIME.fullmatch(told)
    if match is None:
        return Moment(bad=True)  # a day or a year is no time of a measurement
    try:
        return Moment(datetime.fromisoformat(match[1] + (match[2] or "") + (match[3] or "")))
    except ValueError:
        return Moment(bad=True)
