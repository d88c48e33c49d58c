"""What comes from an MQTT broker, and what a configuration says of it."""

from __future__ import annotations

from forms import json, plain
from hl7_parsers import VITALS
from registry import add
from seeds import text

from bedside.agent.formats.payload.clinical import FhirPayload, Hl7Payload
from bedside.agent.formats.payload.json_values import parse_path, read_json, value_at
from bedside.agent.formats.payload.mapping import Envelope
from bedside.agent.formats.payload.packed import PackedForm
from bedside.agent.formats.payload.plain import JsonPayload, NumberPayload
from bedside.agent.mqtt.topics import TopicFilter
from bedside.core.errors import ConfigError

HERE = Envelope(1_790_000_000_000_000_000, "hr", "ward/bed-1")
FIXED = JsonPayload(values={"hr": "v.hr", "t": '["a.b"][0]'}, time="ts", time_format="ms").reader("UTC", ())
NAMED = JsonPayload(each="obs", code="c", value="v", unit="u", time="$.at").reader("Europe/Berlin", ())
RESULT = Hl7Payload().reader("UTC", ("hr",))
OBSERVATION = FhirPayload().reader("Europe/Berlin", ())
OBSERVED = (
    b'{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"8867-4"}]},'
    b'"effectiveDateTime":"2026-03-01T08:00:00","valueQuantity":{"value":72,"code":"/min"}}'
)
NUMBER = NumberPayload(code="hr").reader("UTC", ())
PACKED = PackedForm("uint16", "big", 3, 250.0, "ms")

add("json-values", "agent.formats.payload.json_values.read_json",
    lambda data: value_at(None, read_json(data), ("v", 0)),
    [b'{"v":[1.5,{"a":null}],"w":"\\u00e9"}', b"[" * 16 + b"]" * 16], json)  # fmt: skip
add("json-path", "agent.formats.payload.json_values.parse_path", lambda data: parse_path(text(data)),
    [b"vitals.hr", b"$.a[0][12].b", b'["a.b"].c'], plain, ConfigError)  # fmt: skip
add("json-payload", "agent.formats.payload.plain.JsonPayload.reader", lambda data: FIXED.read(data, HERE),
    [b'{"ts":1790000000123,"v":{"hr":72,"spo2":"97"},"a.b":[36.6]}'], json)  # fmt: skip
add("json-records", "agent.formats.payload.plain.JsonPayload.reader", lambda data: NAMED.read(data, HERE),
    [b'{"obs":[{"c":"147842","v":72,"u":"/min"},{"c":8,"v":true}],"at":"2026-03-01T08:00:00.25+01:00"}'],
    json)  # fmt: skip
add("number-payload", "agent.formats.payload.plain.NumberPayload.reader", lambda data: NUMBER.read(data, HERE),
    [b"72.5", b" -1e3\n"])  # fmt: skip
add("packed-samples", "agent.formats.payload.packed.PackedForm.read", PACKED.read,
    [(1_790_000_000_123).to_bytes(8, "big") + bytes(range(60))])  # fmt: skip
add("hl7-payload", "agent.formats.payload.clinical.Hl7Payload.reader", lambda data: RESULT.read(data, HERE),
    [VITALS])  # fmt: skip
add("fhir-payload", "agent.formats.payload.clinical.FhirPayload.reader", lambda data: OBSERVATION.read(data, HERE),
    [OBSERVED], json)  # fmt: skip
add("topic-filter", "agent.mqtt.topics.TopicFilter",
    lambda data: [TopicFilter(text(data)).match(topic) for topic in ("ward/bed-1/hr", "ward", "a//b")],
    [b"ward/+/hr", b"ward/#", b"+//b"], plain, ConfigError)  # fmt: skip
