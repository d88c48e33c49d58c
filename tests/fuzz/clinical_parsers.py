"""What clinical devices and records say: codes, units and numbers, and the messages that carry them."""

from __future__ import annotations

from typing import Final

import msgspec
from forms import json
from registry import NOW_S, add

from bedside.agent.formats.fhir.observations import read_fhir
from bedside.agent.formats.ieee11073.apdu import ApduReader
from bedside.core.ids import StreamId
from bedside.core.unreadable import UNREADABLE
from bedside.core.vocabulary.normaliser import FieldRule, Normaliser
from bedside.core.vocabulary.reading import Reading

FIELDS: Final = {
    "heart_rate": FieldRule(code="hr", sent_unit="/min"),
    "spo2_foot": FieldRule(code="150456", system="MDC", channel="2", missing=(0.0,)),
}
NORMALISER: Final = Normaliser("ward", FIELDS)


class _Sent(msgspec.Struct):
    code: str
    value: float | str | None
    system: str = ""
    unit: str = ""
    channel: str = ""
    valid: bool = True
    status: str = ""


def _record(data: bytes) -> None:
    sent = _read(data)
    readings = [Reading(one.code, one.value, one.system, one.unit, one.channel, one.valid, one.status) for one in sent]
    record, left = NORMALISER.record(StreamId("bed"), NOW_S * 10**9, readings, NOW_S * 10**9)
    assert len(record.values if record else ()) + sum(one.count for one in left) == len(readings)


def _read(data: bytes) -> list[_Sent]:
    try:
        return msgspec.json.decode(data, type=list[_Sent])
    except UNREADABLE:
        return [_Sent(piece.decode("latin-1"), piece.decode("latin-1"), "MDC") for piece in data.split(b",")[:99]]


def _apdus(data: bytes) -> None:
    """The first byte says whether an extended configuration was announced before."""
    reader = ApduReader(400)
    if data[:1] == b"x":
        reader.read(CONFIGURATION)
    reader.read(data[1:])
    reader.read(ASSOCIATION)


SENT: Final = [
    _Sent("150456", 97.0, "MDC", "262688", "1"),
    _Sent("150456", "97.5", "MDC", "%", "2", status="F"),
    _Sent("8867-4", -1, "LN", "{beat}/min"),
    _Sent("hr", "72"),
    _Sent("MDC_TEMP_BODY", 98.6, unit="degF", status="R"),
    _Sent("160184", 5.5, "MDC", "mmol/L", valid=False),
]
add("readings", "core.vocabulary.normaliser.Normaliser.record", _record, [msgspec.json.encode(SENT)], json)

ASSOCIATION: Final = bytes.fromhex(
    "e200003280000000 0001002a50790026 80000000a000800000000000000000800000 00083132333435363738 4000 0001010000000000"
)
CONFIGURATION: Final = bytes.fromhex(
    "e7000044 0042 0001 0101003c 0000ffffffff0d1c0032 4000 0001002c 000600010004 0024"
    "092f000400024b5c 0a460002f040 0996000217a0 0a55000c 000200080a560004 09900008"
)
OXIMETER: Final = bytes.fromhex(
    "e7000036 0034 0002 0101002e 0000ffffffff0d1d0024 f0000000 0002001c"
    "0001000a00622026030112000000 000a000a00482026030112000000"
)
THERMOMETER: Final = bytes.fromhex(
    "e700002a 0028 0003 01010022 0000ffffffff0d1d0018 f0000000 00010010 0001000cfb3875202026030112000000"
)
VARIABLE: Final = bytes.fromhex(
    "e700003a 0038 0004 01010032 0000ffffffff0d1e0028 f0000000 00010020"
    "00010003001a 0a560004ff000170 099000082026030112000000 0996000217a0"
)
add("apdu", "agent.formats.ieee11073.apdu.ApduReader.read agent.formats.ieee11073.objects.read_configuration"
    " agent.formats.ieee11073.mder.MderCursor", _apdus,
    [b"s" + ASSOCIATION, b"s" + CONFIGURATION, b"s" + OXIMETER, b"x" + THERMOMETER, b"x" + VARIABLE])  # fmt: skip

OBSERVED: Final = (
    b'{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"urn:iso:std:iso:11073:10101",'
    b'"code":"150020"}]},"effectiveDateTime":"2026-03-01T12:00:00.5+01:00","component":[{"code":{"coding":[{"system":'
    b'"http://loinc.org","code":"8480-6"}]},"valueQuantity":{"value":120.5,"unit":"mmHg","code":"mm[Hg]"}},{"code":{},'
    b'"dataAbsentReason":{"coding":[{"code":"unknown"}]}}],"valueInteger":1,"valueString":"9","effectivePeriod":{"end":"x"}}'
)
BUNDLED: Final = (
    b'{"resourceType":"Bundle","entry":[{"resource":'
    + OBSERVED
    + b'},{"resource":{"resourceType":"Patient","name":[]}}]}'
)
IN_XML: Final = (
    b'<Bundle xmlns="http://hl7.org/fhir"><entry><resource><Observation><text><div xmlns="http://www.w3.org/1999/xhtml"/>'
    b'</text><status value="final"/><code><coding><system value="http://loinc.org"/><code value="8867-4"/></coding>'
    b'</code><effectiveInstant value="2026-03-01T12:00:00Z"/><component><code/><valueQuantity><value value="72"/>'
    b"</valueQuantity></component></Observation></resource></entry><entry><resource><Device/></resource></entry></Bundle>"
)
add("fhir-json", "agent.formats.fhir.observations.read_fhir", read_fhir, [OBSERVED, BUNDLED], json)
add("fhir-xml", "agent.formats.fhir.observations.read_fhir agent.formats.fhir.xml.xml_tree", read_fhir, [IN_XML])
