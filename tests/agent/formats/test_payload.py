"""Payloads of a broker's messages: what is described is found, what is not is left out with a reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.formats.payload.clinical import MAX_DEVICES, ApduPayload, FhirPayload, Hl7Payload
from bedside.agent.formats.payload.json_values import (
    MAX_DEPTH,
    MAX_JSON_BYTES,
    MAX_VALUES,
    parse_path,
    read_json,
    value_at,
)
from bedside.agent.formats.payload.mapping import Envelope, Found, Payload, Refused, Row, Wave
from bedside.agent.formats.payload.packed import MAX_PACKED_BYTES
from bedside.agent.formats.payload.plain import MAX_ROWS, JsonPayload, NumberPayload, SamplesPayload
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.samples import Quality
from bedside.core.vocabulary.reading import Reading, Reason

T_MS = 1_790_000_000_000
T_NS = T_MS * 1_000_000


def read(payload: Payload, data: bytes, zone: str = "UTC", sender: str = "t", code: str = "hr") -> list[Found]:
    return payload.reader(zone, ()).read(data, Envelope(T_NS + 5, code, sender))


def test_values_at_fixed_paths() -> None:
    payload = JsonPayload(
        values={"hr": "v.hr", "spo2": "v.spo2", "t": '["a.b"][1]', "x": "not.there"}, time="ts", time_format="ms"
    )
    data = b'{"ts":1790000000000,"v":{"hr":72,"spo2":null},"a.b":[0,"36.6"]}'
    assert read(payload, data) == [Row(T_NS, (Reading("hr", 72.0), Reading("spo2", None), Reading("t", "36.6")))]


def test_records_that_name_their_codes_and_share_a_time_of_the_document() -> None:
    payload = JsonPayload(each="$.obs", code="c", value="v", unit="u", time="$.at")
    data = b'{"at":"2026-03-01T08:00:00+01:00","obs":[{"c":"147842","v":72,"u":"/min"},{"c":8,"v":true},{"v":1}]}'
    t_ns = 1_772_348_400_000_000_000
    assert read(payload, data) == [
        Row(t_ns, (Reading("147842", 72.0, unit="/min"),)),
        Row(t_ns, (Reading("8", "(bool)"),)),
        Refused(Reason.BAD_MESSAGE, "no-values^json"),
    ]


@pytest.mark.parametrize("value", ["true", "{}", "[1]", "1e999", "9" * 400])
def test_what_is_no_number_in_json_never_becomes_one(value: str) -> None:
    payload = JsonPayload(values={"hr": "hr"})
    try:
        (row,) = read(payload, b'{"hr":' + value.encode() + b"}")
    except MalformedError:
        return
    assert isinstance(row, Row)
    assert not isinstance(row.readings[0].value, float) or not np.isfinite(row.readings[0].value)


@pytest.mark.parametrize("time", ["null", '"yesterday"', "-5", "{}", '"2026-03-01"'])
def test_a_time_that_is_none_is_none(time: str) -> None:
    payload = JsonPayload(values={"hr": "hr"}, time="ts", time_format="ms")
    (row,) = read(payload, b'{"hr":72,"ts":' + time.encode() + b"}")
    assert isinstance(row, Row)
    assert row.time_ns is None


@pytest.mark.parametrize(
    "data",
    [
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        b"[" + b"1," * MAX_VALUES + b"1]",
        b"[" + b"{}," * (MAX_VALUES // 2) + b"{}]",
        b'"' + b" " * MAX_JSON_BYTES + b'"',
        b'"\\' * 100_000,
        b"[" * 200_000,
    ],
)
def test_a_document_beyond_the_bounds_is_refused_before_anything_is_built(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read_json(data)


@pytest.mark.parametrize(
    "text", ['{"v":{"hr":62,"hr":26}}', '[{"a":1},{"b":{},"b":{}}]', '{"hr":62,"h\\u0072":26}', '{"a":{"x":1},"a":2}']
)
def test_a_name_that_stands_twice_is_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="two values of one name"):
        read_json(text.encode())


@given(st.recursive(st.none() | st.text('":\\{}a'), lambda one: st.lists(one) | st.dictionaries(st.text('":\\a'), one)))
def test_names_that_stand_once_are_taken_whatever_stands_in_strings(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value


def test_brackets_in_strings_are_no_nesting() -> None:
    assert read_json(b'["' + b"[" * 100 + b'\\"{"]') == ["[" * 100 + '"{']


@pytest.mark.parametrize("text", ["", ".", "a..b", "a[", "a[-1]", "a[01]", "a[1", '["]', "a b", "x" * 201, ".a", "a."])
def test_a_path_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_path(text)


def test_a_path_leads_to_one_value_or_to_nothing() -> None:
    top = {"a": [{"b": 1}], "0": 2}
    assert value_at(top, top, parse_path("a[0].b")) == 1
    assert value_at(top, {"b": 3}, parse_path("b")) == 3
    assert value_at(top, {"b": 3}, parse_path("$.a[0].b")) == 1
    absent = {id(value_at(top, top, parse_path(path))) for path in ("a[1]", "a.b", "a[0].b.c", "b", "[0]")}
    assert len(absent) == 1


def test_too_many_records_are_refused() -> None:
    with pytest.raises(MalformedError):
        read(JsonPayload(each="r", values={"a": "a"}), b'{"r":[' + b"1," * MAX_ROWS + b"1]}")


@pytest.mark.parametrize(
    "payload",
    [
        JsonPayload(),
        JsonPayload(values={"a": "a"}, code="b", value="c"),
        JsonPayload(code="b"),
        JsonPayload(values={"a": "a["}),
        JsonPayload(values={str(number): "a" for number in range(257)}),
        SamplesPayload(rate_hz=0.0),
        SamplesPayload(rate_hz=250.0, channels=0),
        SamplesPayload(rate_hz=250.0, channels=1 << 40),
        SamplesPayload(rate_hz=250.0, scale=float("nan")),
        SamplesPayload(rate_hz=250.0, unit="\x1b"),
        ApduPayload(configuration=3),
    ],
)
def test_a_description_that_cannot_be_is_refused(payload: Payload) -> None:
    with pytest.raises(ConfigError):
        payload.reader("UTC", ())


def test_one_number_as_text_takes_its_code_from_the_topic() -> None:
    assert read(NumberPayload(code="{1}", unit="%"), b" 97\n") == [Row(None, (Reading("hr", "97", unit="%"),))]
    assert read(NumberPayload(code="x"), b"") == [Row(None, (Reading("hr", None),))]
    for data in (b"\xff", b"1" * 65):
        with pytest.raises(MalformedError):
            read(NumberPayload(code="x"), data)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "float32"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_packed_samples_come_back_as_they_were_packed(dtype: str, order: str) -> None:
    values = np.arange(-6, 6).reshape(4, 3).astype(dtype)
    data = values.astype(values.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()
    told = {"dtype": dtype, "byte_order": order, "channels": 3, "rate_hz": 250.0, "unit": "mV", "scale": 0.5}
    (wave,) = read(SamplesPayload(**told), data)
    (timed,) = read(SamplesPayload(**told, time="ms"), T_MS.to_bytes(8, order) + data)
    for one, time_ns in ((wave, None), (timed, T_NS)):
        assert isinstance(one, Wave)
        assert (one.time_ns, one.rate_hz, one.unit, one.scale) == (time_ns, 250.0, "mV", 0.5)
        assert one.values.dtype.name in {"int16", "int32", "float32"}
        assert one.values.flags.c_contiguous
        np.testing.assert_array_equal(one.values, values)


@pytest.mark.parametrize("data", [b"", b"1", b"1234567", b"12345678", bytes(8 + 5), bytes(MAX_PACKED_BYTES + 1)])
def test_samples_that_are_no_whole_rows_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read(SamplesPayload(rate_hz=250.0, channels=2, time="ms"), data)


OXIMETER_ASSOCIATES = bytes.fromhex(
    "e200003280000000 0001002a50790026 80000000a000800000000000000000800000 00083132333435363738 0190 0001010000000000"
)
OXIMETER_REPORTS = bytes.fromhex(
    "e7000036 0034 0002 0101002e 0000ffffffff0d1d0024 f0000000 0002001c"
    "0001000a00622026030112000000 000a000a00482026030112000000"
)
HL7 = (
    b"MSH|^~\\&|MON|WARD|BED|HOSP|20260301080000||ORU^R01|77|P|2.6\rPID|1||4^^^H||No^Body\rPV1||I|ICU^3\r"
    b"OBR|1\rOBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC||72|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||F|||20260301080001\r"
    b"OBX|2|NA|131329^MDC_ECG_LEAD_I^MDC||1^2^3\rOBX|3|NM|hr^^L||60||||||F|||yesterday\r"
)


def test_results_of_hl7_are_read_and_their_waveforms_are_left_to_mllp() -> None:
    found = read(Hl7Payload(), HL7)
    rows = [one for one in found if isinstance(one, Row)]
    left = sorted(one.reason for one in found if isinstance(one, Refused))
    assert [(row.time_ns, row.readings[0].code, row.readings[0].value) for row in rows] == [
        (1_772_352_001_000_000_000, "147842", "72")
    ]
    assert left == [Reason.BAD_TIME, Reason.NOT_WANTED]


def test_a_result_without_any_time_says_none() -> None:
    data = HL7.replace(b"|20260301080000|", b"||").replace(b"|||20260301080001", b"")
    rows = [one for one in read(Hl7Payload(), data) if isinstance(one, Row)]
    assert [row.time_ns for row in rows] == [None]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"|P|2.6", b"|T|2.6", Reason.NOT_WANTED),
        (b"ORU^R01", b"ADT^A01", Reason.NOT_WANTED),
        (b"OBX|3", b"PID|2||5\rOBX|3", Reason.UNKNOWN_PLACE),
    ],
)
def test_tests_movements_and_several_people_are_left_out_reading_by_reading(
    old: bytes, new: bytes, reason: Reason
) -> None:
    found = read(Hl7Payload(), HL7.replace(old, new))
    assert len(found) == 3
    assert {one.reason for one in found if isinstance(one, Refused)} == {reason}


def test_an_observation_of_fhir_is_read_with_the_zone_of_its_sender() -> None:
    data = (
        b'{"resourceType":"Observation","status":"final","effectiveDateTime":"2026-03-01T09:00:00",'
        b'"code":{"coding":[{"system":"http://loinc.org","code":"8867-4"}]},"valueQuantity":{"value":72,"code":"/min"}}'
    )
    (row,) = read(FhirPayload(), data, "Europe/Berlin")
    assert isinstance(row, Row)
    assert (row.time_ns, row.readings[0].value, row.quality) == (1_772_352_000_000_000_000, 72.0, Quality.GOOD)
    undated = read(FhirPayload(), data.replace(b'"effectiveDateTime":"2026-03-01T09:00:00",', b""))
    assert isinstance(undated[0], Row)
    assert undated[0].time_ns is None


def test_what_a_device_announces_holds_for_its_topic_alone() -> None:
    reader = ApduPayload().reader("UTC", ())
    here, elsewhere = (Envelope(T_NS, sender=f"ward/{number}") for number in (1, 2))
    assert reader.read(OXIMETER_ASSOCIATES, here) == []
    (undescribed, *_) = reader.read(OXIMETER_REPORTS, elsewhere)
    assert isinstance(undescribed, Refused)
    rows = reader.read(OXIMETER_REPORTS, here)
    assert [reading.value for row in rows if isinstance(row, Row) for reading in row.readings] == [98.0, 72.0]
    assert read(ApduPayload(configuration=400), OXIMETER_REPORTS) == rows


def test_announcements_of_endless_topics_are_forgotten() -> None:
    reader = ApduPayload().reader("UTC", ())
    for number in range(MAX_DEVICES + 1):
        reader.read(OXIMETER_ASSOCIATES, Envelope(T_NS, sender=f"ward/{number}"))
    assert isinstance(reader.read(OXIMETER_REPORTS, Envelope(T_NS, sender="ward/0"))[0], Refused)
    newest = reader.read(OXIMETER_REPORTS, Envelope(T_NS, sender=f"ward/{MAX_DEVICES}"))
    assert all(isinstance(one, Row) for one in newest)
