"""FHIR: every resource is valid R4, one thing is one resource, and what a server says is told."""

from __future__ import annotations

import json
import math

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.observation import Observation

from bedside.agent.alarms.machine import Happens
from bedside.agent.sinks.observation import Coding, observation
from bedside.agent.sinks.outgoing import ADVISORY, Outgoing, SentAlarm, SentPrediction, SentRecord, derive_id
from bedside.core.samples import Quality
from ward import sink

S = 1_000_000_000
T = 1_780_000_000 * S
CODES = {
    "afib": Coding(system="http://snomed.info/sct", code="49436004", display="Atrial fibrillation", interpretation="A"),
    "heart_rate": Coding(system="urn:iso:std:iso:11073:10101", code="147842", display="MDC_ECG_HEART_RATE"),
}
BODIES = {
    "prediction": SentPrediction("afib", 0.93, T, T + 10 * S, "ecg", b"\x01" * 32),
    "prediction-without-code": SentPrediction("sinus", 1.0, T, T, "", b""),
    "raised": SentAlarm("fast", "high", 151.0, T, 0, 0, "", 0),
    "escalated": SentAlarm("fast", "medium", 151.0, T, 0, 0, "", T + S),
    "closed": SentAlarm("fast", "low", -0.5, T, T + 3 * S, T + 2 * S, "desk", T + S),
    "cleared-at-once": SentAlarm("fast", "low", 1.0, T, T - 1, 0, "", 0),
    "one-value": SentRecord(T, {"heart_rate": 71.0}, {"heart_rate": "/min"}),
    "no-value": SentRecord(T, {"heart_rate": math.nan}, {"heart_rate": "/min"}, Quality.SENSOR_OFF),
    "values": SentRecord(T, {"heart_rate": 71.0, "spo2": math.nan, "ratio": 0.5}, {"heart_rate": "/min", "spo2": "%"}),
}


def outgoing(body, subject: str = "Location/bed-4") -> Outgoing:
    same = derive_id("d", "x", 1)
    return Outgoing(1, same, same, "d", "bed-4-ecg", subject, body)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("subject", ["Location/bed-4", ""])
@pytest.mark.parametrize("device", ["Device/gateway-4", ""])
def test_every_observation_is_valid_r4_and_says_that_it_is_advisory(name, subject, device) -> None:
    made = observation(outgoing(BODIES[name], subject), CODES, device)
    valid = Observation.model_validate(json.loads(json.dumps(made, allow_nan=False)))
    assert valid.status in {"final", "preliminary"}
    assert valid.note[-1].text == ADVISORY
    assert valid.effectivePeriod is not None or valid.effectiveDateTime is not None
    assert (valid.subject.reference if valid.subject else "") == subject
    assert valid.device.reference or valid.device.identifier.value == "d"
    assert valid.identifier[0].value == derive_id("d", "x", 1).urn


def test_codes_units_and_interpretations_are_where_fhir_has_them() -> None:
    decided = observation(outgoing(BODIES["prediction"]), CODES, "")
    assert decided["valueCodeableConcept"]["coding"][0]["code"] == "49436004"
    assert decided["interpretation"][0]["coding"][0]["code"] == "A"
    measured = observation(outgoing(BODIES["one-value"]), CODES, "")
    assert measured["valueQuantity"] == {
        "value": 71.0, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"
    }  # fmt: skip
    assert measured["code"]["coding"][0]["code"] == "147842"
    several = observation(outgoing(BODIES["values"]), CODES, "")
    assert [("valueQuantity" in part, "dataAbsentReason" in part) for part in several["component"]] == [
        (True, False), (False, True), (True, False)
    ]  # fmt: skip


def test_an_alarm_is_preliminary_until_it_is_over() -> None:
    states = {name: observation(outgoing(BODIES[name]), {}, "") for name in ("raised", "escalated", "closed")}
    assert [(one["status"], one["valueCodeableConcept"]["text"]) for one in states.values()] == [
        ("preliminary", "raised"), ("preliminary", "escalated"), ("final", "closed")
    ]  # fmt: skip
    assert [one["interpretation"][0]["coding"][0]["code"] for one in states.values()] == ["AA", "A", "N"]


class Store:
    """What a FHIR server holds after the requests of a receiver."""

    def __init__(self, receiver) -> None:
        self.versions: dict[str, list[dict[str, object]]] = {}
        for method, path, headers, body in receiver.requests:
            found = json.loads(body)
            assert headers["Content-Type"] == "application/fhir+json"
            if method == "PUT":
                self._put(path, found)
                continue
            Bundle.model_validate(found)
            for entry in found["entry"]:
                assert entry["request"]["method"] == "PUT"
                self._put(f"/in/{entry['request']['url']}", entry["resource"])

    def _put(self, path: str, resource: dict[str, object]) -> None:
        Observation.model_validate(resource)
        self.versions.setdefault(path, []).append(resource)


@pytest.mark.parametrize("key", ["id", "identifier"])
@pytest.mark.parametrize("bundle_rows", [1, 10])
async def test_each_thing_is_one_resource_whatever_fails_and_however_put(ward, receiver, key, bundle_rows) -> None:
    receiver.answers = [200, 500, "cut"]
    config = sink(
        "fhir", url=receiver.url, send=["alarms", "predictions", "records"], streams=["bed-4-ecg", "bed-4-vitals"],
        codes={"fall": {"system": "urn:x", "code": "7"}}, subjects={"bed-4-ecg": "Location/bed-4"}, key=key,
        bundle_rows=bundle_rows,
    )  # fmt: skip
    ward.begin(config)
    for _ in range(3):
        ward.predict()
        ward.record()
    alarm = ward.raise_alarm()
    await ward.until(lambda: ward.facts().sent == 7)
    ward.change(alarm, Happens.CLEAR)
    await ward.until(lambda: ward.facts().sent == 8)
    await ward.end(kill=True)
    ward.open()
    ward.begin(config)
    ward.predict()
    await ward.until(lambda: len(Store(receiver).versions) == 8)
    store = Store(receiver).versions
    alarms = [versions for versions in store.values() if versions[-1]["code"]["text"] == "fall" and len(versions) > 1]
    assert any(versions[-1]["status"] == "final" for versions in alarms)
    assert all(("id" in one) == (key == "id") for versions in store.values() for one in versions)


async def test_what_the_server_says_is_told_and_what_it_refuses_is_counted(ward, receiver) -> None:
    issue = {"severity": "error", "code": "code-invalid", "details": {"text": "Unknown\u202e code"}}
    receiver.body = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()
    receiver.always = 422
    ward.begin(sink("fhir", url=receiver.url))
    ward.predict()
    await ward.until(lambda: ward.facts().refused == 1)
    assert "422: code-invalid: Unknown\\u202e code" in ward.facts().last_error
