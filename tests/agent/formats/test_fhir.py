"""FHIR resources: observations become readings, nothing else is looked into."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from bedside.agent.formats.delivery import Delivery, Moment
from bedside.agent.formats.fhir.observations import MAX_ENTRIES, MAX_FHIR_BYTES, MAX_VALUES, read_fhir
from bedside.agent.formats.fhir.xml import MAX_DEPTH, MAX_ELEMENTS, xml_tree
from bedside.core.errors import MalformedError
from bedside.core.vocabulary.reading import Reading, Reason, Unusable

MDC, LOINC, UCUM = "urn:iso:std:iso:11073:10101", "http://loinc.org", "http://unitsofmeasure.org"
NOON = "2026-03-01T12:00:00+01:00"
AT_NOON = Moment(datetime(2026, 3, 1, 11, 0, tzinfo=UTC))


def concept(*codings: tuple[str, str]) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code} for system, code in codings]}


def quantity(value: float, code: str, **more: str) -> dict[str, Any]:
    return {"value": value, "system": UCUM, "code": code, **more}


def observation(code: str = "150456", system: str = MDC, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "status": "final", "code": concept((system, code)), "effectiveDateTime": NOON,
        **more,
    }  # fmt: skip


def bundle(*resources: object) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": one} for one in resources]}


def read(resource: object) -> Delivery:
    return read_fhir(json.dumps(resource).encode())


def readings(delivery: Delivery) -> list[Reading]:
    return [reading for alike in delivery.readings.values() for reading in alike]


def test_a_quantity_is_a_reading_of_its_time() -> None:
    delivery = read(observation(valueQuantity=quantity(97.5, "%")))
    assert delivery.readings == {AT_NOON: [Reading("150456", 97.5, "MDC", "%", status="final")]}
    assert not delivery.left


def test_a_code_that_the_vocabulary_knows_comes_before_others() -> None:
    codings = concept(("http://hospital.example/codes", "PR"), (LOINC, "8867-4"), (MDC, "149530"))
    delivery = read(observation(valueQuantity=quantity(72, "/min")) | {"code": codings})
    assert [(one.code, one.system) for one in readings(delivery)] == [("149530", "MDC")]
    codings = concept(("http://hospital.example/codes", "PR"), (LOINC, "8867-4"), (MDC, "1"))
    delivery = read(observation(valueQuantity=quantity(72, "/min")) | {"code": codings})
    assert [(one.code, one.system) for one in readings(delivery)] == [("8867-4", "LN")]
    delivery = read(observation("PR", "http://hospital.example/codes", valueQuantity=quantity(72, "/min")))
    assert [(one.code, one.system) for one in readings(delivery)] == [("PR", "http://hospital.example/codes")]


def test_a_code_that_a_configuration_names_comes_first() -> None:
    codings = concept((MDC, "149530"), ("http://hospital.example/codes", "PR"))
    resource = observation(valueQuantity=quantity(72, "/min")) | {"code": codings}
    delivery = read_fhir(json.dumps(resource).encode(), {"PR"})
    assert [one.code for one in readings(delivery)] == ["PR"]


def test_components_are_readings_of_one_time() -> None:
    parts = [
        {"code": concept((MDC, "150021")), "valueQuantity": quantity(120, "mm[Hg]")},
        {"code": concept((MDC, "150022")), "valueQuantity": {"value": 80, "unit": "mmHg"}},
        {"code": concept((MDC, "150023")), "dataAbsentReason": concept(("x", "not-a-number"))},
    ]
    delivery = read(observation("150020", component=parts))
    assert delivery.readings == {
        AT_NOON: [
            Reading("150021", 120.0, "MDC", "mm[Hg]", status="final"),
            Reading("150022", 80.0, "MDC", "mmHg", status="final"),
            Reading("150023", None, "MDC", valid=False, status="final"),
        ]
    }


def test_observations_of_one_time_are_one_moment() -> None:
    one, other = (
        observation(valueQuantity=quantity(97, "%"), effectiveDateTime=NOON),
        observation("149530", valueQuantity=quantity(72, "/min"), effectiveDateTime="2026-03-01T11:00:00.000Z"),
    )
    assert len(read(bundle(one, other)).readings[AT_NOON]) == 2


@pytest.mark.parametrize(
    ("reason", "value"),
    [("unknown", None), ("not-a-number", None), ("positive-infinity", math.inf), ("negative-infinity", -math.inf)],
)
def test_a_reason_for_no_value_is_no_value(reason: str, value: float | None) -> None:
    delivery = read(observation(dataAbsentReason=concept(("x", reason))))
    assert readings(delivery) == [Reading("150456", value, "MDC", valid=value is not None, status="final")]


def test_a_comparator_stays_with_its_number() -> None:
    delivery = read(observation(valueQuantity=quantity(5, "%", comparator="<")))
    assert [one.value for one in readings(delivery)] == ["<5.0"]


def test_numbers_and_texts_without_a_unit() -> None:
    assert [one.value for one in readings(read(observation(valueInteger=14)))] == [14]
    assert [one.value for one in readings(read(observation(valueString="lead off")))] == ["lead off"]


@pytest.mark.parametrize(
    ("status", "expected"), [("preliminary", "preliminary"), ("entered-in-error",) * 2, ("", "unknown")]
)
def test_the_status_is_told_with_each_reading(status: str, expected: str) -> None:
    delivery = read(observation(status=status, valueQuantity=quantity(97, "%")))
    assert [one.status for one in readings(delivery)] == [expected]


@pytest.mark.parametrize(
    "value",
    [
        {"valueSampledData": {"period": 8, "dimensions": 1, "data": "1 2 3"}},
        {"valueCodeableConcept": concept((MDC, "147474"))},
        {"valueBoolean": True},
        {"valueDateTime": NOON},
        {},
    ],
)
def test_what_is_no_number_is_not_wanted(value: dict[str, Any]) -> None:
    delivery = read(observation("150452", **value))
    assert delivery.left == [Unusable(Reason.NOT_WANTED, "150452^MDC")]
    assert not delivery.readings


def timed(**time: Any) -> Moment:
    resource = observation(valueQuantity=quantity(97, "%"), **time)
    if "effectiveDateTime" not in time:
        del resource["effectiveDateTime"]
    (moment,) = read(resource).readings
    return moment


def test_times() -> None:
    assert timed(effectiveInstant=NOON) == AT_NOON
    assert timed(effectivePeriod={"start": "2026-03-01T10:00:00Z", "end": NOON}) == AT_NOON
    assert timed(effectivePeriod={"start": NOON}) == AT_NOON
    assert timed(effectiveDateTime="2026-03-01T11:00:00.123456789Z").time == AT_NOON.time.replace(microsecond=123_456)
    assert timed(effectiveDateTime="2026-03-01T11:00:00") == Moment(datetime(2026, 3, 1, 11))  # noqa: DTZ001  # local
    assert timed() == Moment()


@pytest.mark.parametrize(
    "time",
    [
        {"effectiveDateTime": "2026-03-01"},
        {"effectiveDateTime": "2026"},
        {"effectiveDateTime": "2026-02-30T00:00:00Z"},
        {"effectiveDateTime": "2026-03-01T11:00:60Z"},
        {"effectiveDateTime": "2026-03-01T11:00:00+25:00"},
        {"effectiveDateTime": "yesterday"},
        {"effectivePeriod": {}},
        {"effectiveTiming": {"event": [NOON]}},
    ],
)
def test_a_time_that_is_no_moment_is_told(time: dict[str, Any]) -> None:
    assert timed(**time) == Moment(bad=True)


@pytest.mark.parametrize("kind", ["Patient", "Device", "DeviceMetric", "Location", "Practitioner", "Condition"])
def test_other_resources_are_told_by_their_type(kind: str) -> None:
    other = {"resourceType": kind, "name": [{"family": "Finn"}], "code": "any", "status": 7}
    alone, within = read(other), read(bundle(other, observation(valueQuantity=quantity(97, "%"))))
    assert alone.left == within.left == [Unusable(Reason.NOT_WANTED, f"{kind}^FHIR")]
    assert len(readings(within)) == 1
    assert "Finn" not in repr((alone, within))


def test_observations_of_several_patients_are_of_no_bed() -> None:
    theirs = [
        observation(valueQuantity=quantity(97, "%"), subject={"reference": f"Patient/{patient}"}) for patient in "aab"
    ]
    delivery = read(bundle(*theirs))
    assert not delivery.readings
    assert delivery.left == [Unusable(Reason.UNKNOWN_PLACE, "150456^MDC [%]")] * 3
    assert len(readings(read(bundle(*theirs[:2])))) == 2


NAMED: list[tuple[dict[str, Any], ...]] = [
    ({"identifier": {"value": "MRN1"}}, {"identifier": {"value": "MRN2"}}),
    ({"identifier": {"system": "a", "value": "1"}}, {"identifier": {"system": "b", "value": "1"}}),
    ({"reference": "Patient/1"}, {"identifier": {"value": "MRN2"}}),
    ({"reference": "Patient/1"}, {}),
]


@pytest.mark.parametrize("subjects", NAMED)
def test_patients_are_told_apart_by_all_that_names_them_and_none_is_told(subjects: tuple[dict[str, Any], ...]) -> None:
    theirs = [observation(valueQuantity=quantity(97, "%"), subject=subject) for subject in subjects]
    delivery = read(bundle(*theirs))
    assert not delivery.readings
    assert delivery.left == [Unusable(Reason.UNKNOWN_PLACE, "150456^MDC [%]")] * 2
    assert "MRN" not in repr(delivery)
    assert len(readings(read(bundle(theirs[0], theirs[0])))) == 2


def test_patients_of_xml_are_told_apart_by_identifier() -> None:
    value = '<valueQuantity><value value="97"/><code value="%"/></valueQuantity>'
    told = "".join(
        f'<entry><resource><Observation><identifier><value value="x"/></identifier><identifier><value value="y"/>'
        f'</identifier><status value="final"/><code><coding><system value="{MDC}"/><code value="150456"/></coding>'
        f'</code><subject><identifier><value value="{one}"/></identifier></subject>{value}</Observation></resource>'
        "</entry>"
        for one in ("MRN1", "MRN2")
    )
    delivery = read_fhir(f'<Bundle xmlns="http://hl7.org/fhir">{told}</Bundle>'.encode())
    assert [one.reason for one in delivery.left] == [Reason.UNKNOWN_PLACE] * 2


def test_one_unreadable_observation_leaves_the_others() -> None:
    good, bad = observation(valueQuantity=quantity(97, "%")), observation(valueQuantity="97 %")
    delivery = read(bundle(bad, good))
    assert len(readings(delivery)) == 1
    assert delivery.left == [Unusable(Reason.BAD_MESSAGE, "Observation^FHIR")]
    with pytest.raises(MalformedError):
        read(bad)


def test_a_bundle_within_a_bundle_is_not_opened() -> None:
    assert read(bundle(bundle(observation()))).left == [Unusable(Reason.NOT_WANTED, "Bundle^FHIR")]


XML = f"""<?xml version="1.0" encoding="UTF-8"?>
<Observation xmlns="http://hl7.org/fhir">
  <text><div xmlns="http://www.w3.org/1999/xhtml"><p>Huckleberry Finn<code value="x"/></p></div></text>
  <status value="final"/>
  <category><coding><code value="vital-signs"/></coding></category>
  <code><coding><system value="{MDC}"/><code value="150456"/><display value="SpO2"/></coding></code>
  <subject><reference value="Patient/7"/><display value="Finn"/></subject>
  <effectiveDateTime value="{NOON}"/>
  <valueQuantity><value value="97.5"/><unit value="%"/><system value="{UCUM}"/><code value="%"/></valueQuantity>
</Observation>"""


def test_xml_says_the_same_as_json() -> None:
    delivery = read_fhir(XML.encode())
    assert delivery.readings == {AT_NOON: [Reading("150456", "97.5", "MDC", "%", status="final")]}
    assert "Finn" not in repr(xml_tree(XML.encode()))
    body = XML.partition("?>")[2]
    both = f'<Bundle xmlns="http://hl7.org/fhir"><entry><resource>{body}</resource></entry><entry><fullUrl value="x"/>'
    both += "</entry><entry><resource><Patient><name/></Patient></resource></entry></Bundle>"
    delivery = read_fhir(b"\xef\xbb\xbf \n" + both.encode())
    assert len(readings(delivery)) == 1
    assert delivery.left == [Unusable(Reason.NOT_WANTED, "Patient^FHIR")]


def test_components_in_xml() -> None:
    part = f'<component><code><coding><system value="{MDC}"/><code value="%d"/></coding></code>%s</component>'
    value = '<valueQuantity><value value="120"/><code value="mm[Hg]"/></valueQuantity>'
    absent = '<dataAbsentReason><coding><code value="unknown"/></coding></dataAbsentReason>'
    wave = '<valueSampledData><origin><value value="1"/></origin><data value="1 2"/></valueSampledData>'
    parts = part % (150021, value) + part % (150022, absent) + part % (131329, wave)
    delivery = read_fhir(
        f'<Observation xmlns="http://hl7.org/fhir"><status value="final"/>{parts}</Observation>'.encode()
    )
    assert delivery.readings == {
        Moment(): [
            Reading("150021", "120", "MDC", "mm[Hg]", status="final"),
            Reading("150022", None, "MDC", valid=False, status="final"),
        ]
    }
    assert delivery.left == [Unusable(Reason.NOT_WANTED, "131329^MDC")]


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'"Observation"',
        b'{"resourceType": 7}',
        b'{"resourceType": "Bundle", "entry": [{"resource": []}]}',
        b'{"resourceType": "Observation", "component": {}}',
        b"[" * 100_000,
        b'{"resourceType": "\xff"}',
        b"<",
        b"<Observation/>",
        XML.replace("</Observation>", "").encode(),
        XML.replace("</Observation>", '<status value="final"/></Observation>').encode(),
        XML.replace('<status value="final"/>', "<status><x/></status>").encode(),
        XML.replace("<Observation", ENTITIES + "<Observation", 1).replace("97.5", "&b;").encode(),
        XML.replace("<Observation", '<!DOCTYPE x SYSTEM "file:///etc/passwd"><Observation', 1).encode(),
        XML.replace("Huckleberry", "<b>" * MAX_DEPTH + "</b>" * MAX_DEPTH).encode(),
        XML.replace("Huckleberry", "<b/>" * MAX_ELEMENTS).encode(),
        XML.encode("utf-16"),
    ],
)
def test_what_is_no_resource_is_malformed(document: bytes) -> None:
    with pytest.raises(MalformedError):
        read_fhir(document)


def test_a_name_that_stands_twice_is_malformed_wherever_it_stands() -> None:
    text = json.dumps(bundle(observation(valueQuantity=quantity(62, "/min"))))
    for name, again in (('"value": 62', '"value": 62, "value": 26'), ('"status"', '"status": "final", "status"')):
        assert again not in text
        with pytest.raises(MalformedError, match="a name twice"):
            read_fhir(text.replace(name, again, 1).encode())


def test_a_resource_is_bounded() -> None:
    with pytest.raises(MalformedError, match="values"):
        read({"resourceType": "Patient", "x": [0] * MAX_VALUES})
    with pytest.raises(MalformedError, match="at most"):
        read_fhir(json.dumps(observation()).encode() + b" " * MAX_FHIR_BYTES)
    with pytest.raises(MalformedError, match="entries"):
        read({"resourceType": "Bundle", "entry": [{}] * (MAX_ENTRIES + 1)})
