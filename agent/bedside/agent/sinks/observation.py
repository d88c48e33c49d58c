"""What leaves as FHIR R4 Observations.

A prediction is final, with the class as a concept and its probability as a component. One of several labels has a
component per label with its probability; one of values a component per value, or the value itself where it has one,
with its UCUM unit. An alarm is one Observation that
is preliminary until it is over. A record is one with a component per field, or with the value itself where it has one
field.

Source: HL7 FHIR R4 (4.0.1), Observation, Bundle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from bedside.agent.buffer.rows import Output
from bedside.agent.kinds import option
from bedside.agent.sinks.outgoing import ADVISORY, Outgoing, SentAlarm, SentPrediction, SentRecord
from bedside.agent.sinks.rows import moment, quality_words

UCUM: Final = "http://unitsofmeasure.org"
URN: Final = "urn:ietf:rfc:3986"
DEVICE_SYSTEM: Final = "urn:bedside:device"
STREAM_SYSTEM: Final = "urn:bedside:stream"
_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
_INTERPRETATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_ABSENT: Final = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
SEVERITY: Final = {"low": "A", "medium": "A", "high": "AA"}
"""Of an alarm that lasts: abnormal, or critically so."""

Json = dict[str, object]


class Coding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code for a class, a rule, a model or a field.

    Attributes:
        system: of the code, a URI.
        code: in that system.
        display: what the system calls it.
        interpretation: of a class: a code such as `A` or `N` of HL7's ObservationInterpretation.
    """

    system: Annotated[str, option("of the code, a URI")] = ""
    code: Annotated[str, option("in that system")] = ""
    display: Annotated[str, option("what the system calls it")] = ""
    interpretation: Annotated[str, option("of a class: A, AA, N ... of ObservationInterpretation")] = ""


def observation(one: Outgoing, codes: Mapping[str, Coding], device: str, *, with_id: bool = True) -> Json:
    """One Observation.

    Args:
        one: what leaves.
        codes: by name of a class, a rule, a model or a field.
        device: reference of this device in the server, for instance `Device/gateway-4`; empty = by its identifier.
        with_id: whether it has the id under which it is put.
    """
    body = one.body
    found: Json = {"resourceType": "Observation"}
    if with_id:
        found["id"] = str(one.id)
    found["identifier"] = [{"system": URN, "value": one.id.urn}]
    if isinstance(body, SentPrediction):
        found |= _of_prediction(body, codes)
    elif isinstance(body, SentAlarm):
        found |= _of_alarm(body, codes)
    else:
        found |= _of_record(body, codes)
    if one.subject:
        found["subject"] = {"reference": one.subject}
    found["device"] = {"reference": device} if device else {"identifier": _identifier(DEVICE_SYSTEM, one.device)}
    notes = found.get("note")
    more = notes if isinstance(notes, list) else []
    found["note"] = [*more, {"text": ADVISORY}]
    if not one.subject:
        found["focus"] = [{"identifier": _identifier(STREAM_SYSTEM, one.stream), "display": one.stream}]
    return found


def _of_prediction(body: SentPrediction, codes: Mapping[str, Coding]) -> Json:
    found: Json = {
        "status": "final",
        "category": _category("procedure"),
        "code": _concept(body.model or "prediction", codes),
        "effectivePeriod": {"start": moment(body.start_ns), "end": moment(body.end_ns)},
    }
    method: Json = {"method": {"text": f"model {body.digest.hex()}"}}
    if body.outputs:
        return found | _of_outputs(body.outputs, codes) | method
    found |= {"valueCodeableConcept": _concept(body.label, codes)} | method
    found["component"] = [{"code": {"text": "probability"}, "valueQuantity": _probability(body.confidence)}]
    said = codes[body.label].interpretation if body.label in codes else ""
    return found | ({"interpretation": _interpretation(said)} if said else {})


def _of_outputs(outputs: Sequence[Output], codes: Mapping[str, Coding]) -> Json:
    """One value is the Observation's own, under its own code; several values or labels are components."""
    quantities = [_probability(one.value) if one.is_probability else _quantity(one.value, one.unit) for one in outputs]
    if len(outputs) == 1:
        return {"code": _concept(outputs[0].name, codes), "valueQuantity": quantities[0]}
    named = zip(outputs, quantities, strict=True)
    return {"component": [{"code": _concept(one.name, codes), "valueQuantity": value} for one, value in named]}


def _of_alarm(body: SentAlarm, codes: Mapping[str, Coding]) -> Json:
    period = {"start": moment(body.raised_ns)}
    if body.cleared_ns:
        period["end"] = moment(max(body.cleared_ns, body.raised_ns))
    components: list[Json] = [
        {"code": {"text": "priority"}, "valueString": body.priority},
        {"code": {"text": "value that raised it"}, "valueQuantity": {"value": body.value}},
    ]
    components += [
        {"code": {"text": what}, "valueDateTime": moment(time_ns)}
        for what, time_ns in (("escalated", body.escalated_ns), ("acknowledged", body.acknowledged_ns))
        if time_ns
    ]
    if body.acknowledged_by:
        components.append({"code": {"text": "acknowledged by"}, "valueString": body.acknowledged_by})
    return {
        "status": "final" if body.cleared_ns else "preliminary",
        "category": _category("procedure"),
        "code": _concept(body.rule, codes),
        "effectivePeriod": period,
        "valueCodeableConcept": {"text": body.state},
        "interpretation": _interpretation("N" if body.cleared_ns else SEVERITY[body.priority]),
        "component": components,
    }


def _of_record(body: SentRecord, codes: Mapping[str, Coding]) -> Json:
    measured = [(name, _measured(value, body.units.get(name, ""))) for name, value in body.values.items()]
    found: Json = {
        "status": "final",
        "category": _category("vital-signs"),
        "effectiveDateTime": moment(body.time_ns),
    }
    if len(measured) == 1:
        name, value = measured[0]
        found |= {"code": _concept(name, codes)} | value
    else:
        found["code"] = _concept("record", codes)
        found["component"] = [{"code": _concept(name, codes)} | value for name, value in measured]
    if body.quality:
        found["note"] = [{"text": f"quality: {', '.join(quality_words(body.quality))}"}]
    return found


def _measured(value: float, unit: str) -> Json:
    if math.isnan(value):
        return {"dataAbsentReason": {"coding": [{"system": _ABSENT, "code": "not-a-number"}]}}
    return {"valueQuantity": _quantity(value, unit)}


def _probability(value: float) -> Json:
    return _quantity(round(value, 6), "1")


def _quantity(value: float, unit: str) -> Json:
    return {"value": value} | ({"unit": unit, "system": UCUM, "code": unit} if unit else {})


def _concept(name: str, codes: Mapping[str, Coding]) -> Json:
    known = codes.get(name)
    if known is None or not known.code:
        return {"text": name}
    coding = {"system": known.system, "code": known.code, "display": known.display}
    return {"coding": [{key: text for key, text in coding.items() if text}], "text": name}


def _category(code: str) -> list[Json]:
    return [{"coding": [{"system": _CATEGORY, "code": code}]}]


def _interpretation(code: str) -> list[Json]:
    return [{"coding": [{"system": _INTERPRETATION, "code": code}]}]


def _identifier(system: str, value: str) -> Json:
    return {"system": system, "value": value}
