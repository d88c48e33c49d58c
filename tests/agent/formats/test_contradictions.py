"""What contradicts itself is left out with a reason, whatever format it comes in; nothing is guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bedside.agent.formats.fhir.observations import read_fhir
from bedside.agent.formats.hl7.message import read_message
from bedside.agent.formats.hl7.observations import moments, visits
from bedside.core.vocabulary.mdc import TERMS, contradicted
from bedside.core.vocabulary.normaliser import Normaliser
from bedside.core.vocabulary.reading import Measured, Reason, Unusable

MDC, LOINC, UCUM = "urn:iso:std:iso:11073:10101", "http://loinc.org", "http://unitsofmeasure.org"
NORMALISER = Normaliser("any")


def fhir(codings: list[tuple[str, str]], quantity: dict[str, Any], wanted: tuple[str, ...] = (), **more: Any) -> list:
    """What becomes of an observation."""
    resource = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": system, "code": code} for system, code in codings]},
        "valueQuantity": quantity,
        **more,
    }
    delivery = read_fhir(json.dumps(resource).encode(), wanted)
    return [NORMALISER.measure(one) for alike in delivery.readings.values() for one in alike] + delivery.left


def hl7(code: str, wanted: tuple[str, ...] = ()) -> list[object]:
    """What becomes of an OBX."""
    text = f"MSH|^~\\&|A|B|C|D|20261126010000||ORU^R01|1|P|2.6\rOBX|1|NM|{code}||37|%|||||F\r"
    (visit,) = visits(read_message(text.encode()))
    read, left = moments(visit.observations, lambda _: 1, wanted)
    return [NORMALISER.measure(one) for moment in read for one in moment.readings] + [reason for reason, _ in left]


TEMPERATURE = [(LOINC, "8310-5")]


@pytest.mark.parametrize(
    "quantity",
    [
        {"value": 37, "unit": "Cel", "code": "F", "system": "http://hospital.example/units"},
        {"value": 37, "unit": "Cel", "code": "F"},
        {"value": 37, "code": "F", "system": "http://hospital.example/units"},
        {"value": 37, "code": "U17", "system": "http://hospital.example/units"},
        {"value": 37, "unit": "Cel", "code": "[degF]", "system": MDC},
    ],
)
def test_a_code_of_another_system_is_no_unit(quantity: dict[str, Any]) -> None:
    assert fhir(TEMPERATURE, quantity) == [Unusable(Reason.UNKNOWN_UNIT, "8310-5^LN")]


@pytest.mark.parametrize(
    "quantity",
    [
        {"value": 37, "unit": "degrees", "code": "Cel", "system": UCUM},
        {"value": 37, "unit": "degrees", "code": "268192", "system": MDC},
        {"value": 37, "unit": "Cel", "code": "U17", "system": "http://hospital.example/units"},
        {"value": 37, "unit": "deg C", "code": "C", "system": "http://hospital.example/units"},
        {"value": 37, "unit": "C", "code": "Cel"},
        {"value": 37, "code": "Cel"},
        {"value": 37, "unit": "C"},
    ],
)
def test_a_unit_that_nothing_contradicts_is_taken(quantity: dict[str, Any]) -> None:
    assert fhir(TEMPERATURE, quantity) == [Measured("temp_body", 37.0, "Cel")]


def test_a_value_beside_a_reason_for_none_is_neither() -> None:
    absent = {"coding": [{"code": "error"}]}
    quantity = {"value": 37, "code": "Cel", "system": UCUM}
    assert fhir(TEMPERATURE, quantity, dataAbsentReason=absent) == [Unusable(Reason.BAD_MESSAGE, "8310-5^LN")]


def test_codings_of_two_quantities_are_ambiguous() -> None:
    quantity = {"value": 37, "code": "%", "system": UCUM}
    codings = [(MDC, "150456"), (LOINC, "8310-5")]
    assert fhir(codings, quantity) == [Unusable(Reason.AMBIGUOUS, "150456^MDC")]
    assert fhir(codings, quantity, ("150456",)) == [Measured("spo2", 37.0, "%", "MDC_PULS_OXIM_SAT_O2")]


@pytest.mark.parametrize(
    "code",
    [
        "147842^MDC_PULS_OXIM_SAT_O2^MDC^8310-5^temp^LN",
        "147842^MDC_PULS_OXIM_SAT_O2^MDC",
        "150456^MDC_PULS_OXIM_SAT_O2^MDC^8310-5^temp^LN",
        "150021^MDC_PRESS_BLD_NONINV_SYS^MDC^8462-4^diastolic^LN",
    ],
)
def test_codes_of_two_quantities_are_ambiguous_in_hl7(code: str) -> None:
    assert hl7(code) == [Reason.AMBIGUOUS]


def test_of_two_codes_the_one_that_is_configured_counts() -> None:
    assert hl7("150456^MDC_PULS_OXIM_SAT_O2^MDC^8310-5^temp^LN", ("150456",)) == [
        Measured("spo2", 37.0, "%", "MDC_PULS_OXIM_SAT_O2")
    ]


@pytest.mark.parametrize(
    ("code", "general"),
    [
        ("147842", "8867-4"),  # FHIR's vital signs ask for these beside a device's own codes
        ("149530", "8867-4"),
        ("150021", "8480-6"),
        ("150456", "59408-5"),
        ("150456", "2708-6"),
        ("188424", "8310-5"),
        ("151562", "9279-1"),
    ],
)
def test_what_a_quantity_is_called_in_general_is_no_contradiction(code: str, general: str) -> None:
    assert not contradicted(code, "MDC", [(code, "MDC"), (general, "LN"), ("PR", "hospital")])
    assert not contradicted(general, "LN", [(code, "MDC")])
    assert contradicted(code, "MDC", [("29463-7", "LN")])


def test_a_reference_id_goes_with_its_own_code_alone() -> None:
    for code, term in TERMS.items():
        assert not contradicted(str(code), "MDC", [(term.reference, "MDC")])
