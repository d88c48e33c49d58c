"""What HL7 messages become: dirty ones, fixtures of others, waveforms, and the people in them."""

import os
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from bedside.agent.formats.hl7.message import read_message
from bedside.agent.formats.hl7.times import time_ns
from bedside.agent.sources.mllp.beds import Bed, Beds
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, MarkKind, Quality, Record
from bedside.core.vocabulary.normaliser import FieldRule
from hl7_ward import BED_3, HEAD, NS, T0, Ward, evn, hr, left, marks, records

OPEN, CLOSE = MarkKind.SESSION_OPEN, MarkKind.SESSION_CLOSE


def test_an_oru_of_the_textbook_is_one_record_a_time() -> None:
    events = Ward({"ICU^3": "bed-3"}).take(
        "PID|||4711||No^Body",
        "PV1||I|ICU^3^B",
        "OBR|1|||1^Monitoring^L|||20260301075958",
        "OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X",
        hr(),
        "OBX|3|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC|1.3.1|97|262688^MDC_DIM_PERCENT^MDC|||||F|||20260301075957.5+0000",
        "OBX|4|NM|8310-5^^LN||98.6|[degF]^^UCUM|||||R",
    )
    assert records(events) == [
        ("bed-3", -3, {"spo2": 97.0}),
        ("bed-3", -2, {"heart_rate": 61.0, "temp_body": 37.0}),
    ]
    assert left(events) == {("not-wanted", "69965^MDC"): 1}


def test_a_bare_oru_without_structure_is_dated_by_its_header_and_else_by_its_arrival() -> None:
    ward = Ward()
    assert records(ward.take(hr(), kind="ORU")) == [("bed", 0, {"heart_rate": 61.0})]
    bare = "MSH|^~\\&|||||||{kind}|{id}|P|2.3"
    assert records(ward.take(hr(), kind="ORU", head=bare)) == [("bed", 1, {"heart_rate": 61.0})]


@pytest.mark.parametrize("value", ["-999", "-99.9", "-1", "8388607"])
@pytest.mark.parametrize("status", ["F", "X"])
def test_what_monitors_send_for_no_value_is_no_value(value, status) -> None:
    ((_, _, values),) = records(Ward().take(hr(value, status)))
    assert np.isnan(values["heart_rate"])


@pytest.mark.parametrize("flag", ["INV", "L~NAV", "OFF"])
def test_a_value_that_its_device_calls_invalid_is_none(flag) -> None:
    ((_, _, values),) = records(Ward().take(hr().replace("|||||F", f"||{flag}|||F")))
    assert np.isnan(values["heart_rate"])


@pytest.mark.parametrize(
    ("obx", "reason"),
    [
        (hr("61 bpm"), "not-a-number"),
        (hr("61^62"), "not-a-number"),
        (hr("61&62"), "not-a-number"),
        (hr("7\\.br\\2"), "not-a-number"),
        (hr("7\\Z1\\2"), "not-a-number"),
        (hr("1\\C2842\\2\\M24\\0"), "not-a-number"),
        (hr("61", "C"), "bad-status"),
        (hr("61", "P"), "bad-status"),
        (hr("9000"), "out-of-range"),
        (hr(time="20260301"), "bad-time"),
        (hr(time="yesterday"), "bad-time"),
        (hr(time="19700101000000"), "bad-time"),
        ("OBX|1|NM|MOOD^Mood^L||fine", "unknown-code"),
        ("OBX|1|SN|8867-4^^LN||>^300|/min", "not-a-number"),
        ("OBX|1|SN|8867-4^^LN||=^72&5|/min", "not-a-number"),
        ("OBX|1|ED|8867-4^^LN||^AP^PDF^Base64^aGk=", "not-wanted"),
        ("OBX|1|RP|8867-4^heartrate^LN||https://host^^SD^PICT", "not-wanted"),
        ("OBX|1|NM|8867-4^^LN||61|furlong", "unknown-unit"),
        ("OBX", "not-wanted"),
    ],
)
def test_what_cannot_be_mapped_is_left_out_with_its_reason_and_without_its_value(obx, reason) -> None:
    events = Ward().take(obx)
    assert records(events) == []
    ((found, what),) = left(events)
    assert found == reason
    assert not any(word in what for word in ("fine", "bpm", "host", "9000"))


def test_local_numbers_that_are_text_and_a_code_that_the_configuration_knows() -> None:
    ward = Ward(fields={"paced_rate": FieldRule(code="PR9", unit="/min", sent_unit="/min")})
    events = ward.take("OBX|1|NM|PR9^Paced^99MON^147842^MDC_ECG_HEART_RATE^MDC||60", "OBX|2|NM|PR9^Paced^99MON||DEMAND")
    assert records(events) == [("bed", 0, {"paced_rate": 60.0})]
    assert left(events) == {("not-a-number", "PR9^99MON"): 1}


def test_two_values_of_one_saturation_at_one_time_are_ambiguous_and_counted() -> None:
    spo2 = "OBX|{n}|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC|1.3.{n}|{value}|%"
    events = Ward().take(spo2.format(n=1, value=97), spo2.format(n=2, value=91), hr("61~62"))
    assert records(events) == []
    assert sum(left(events).values()) == 4
    assert {reason for reason, _ in left(events)} == {"ambiguous"}


def test_a_structured_number_that_is_exact_is_a_number() -> None:
    events = Ward().take("OBX|1|SN|8867-4^^LN||^61|/min")
    assert records(events) == [("bed", 0, {"heart_rate": 61.0})]


def test_who_is_named_behind_observations_is_another_person_and_has_no_place_of_theirs() -> None:
    events = Ward({"ICU^3": "bed-3"}).take("PV1||I|ICU^3", hr("61"), "PID|2", hr("99"))
    assert records(events) == [("bed-3", 0, {"heart_rate": 61.0})]
    assert sum(count for (reason, _), count in left(events).items() if reason == "unknown-place") == 1


def test_a_place_holds_for_its_own_person_alone() -> None:
    ward = Ward({"ICU^3": "bed-3", "ICU^4": "bed-4"})
    events = ward.take(
        "PID|1", hr("63"), "PV1||I|ICU^3", "PID|2", hr("99"), "PV1||I|ICU^4^A", hr("64", time="20260301080001")
    )
    assert records(events) == [
        *(("bed-3", 0, {"heart_rate": 63.0}), ("bed-4", 0, {"heart_rate": 99.0}), ("bed-4", 1, {"heart_rate": 64.0}))
    ]
    events = ward.take("PID|1", "PV1||I|ICU^3", hr("63"), "PID|2", hr("99~98"))
    assert records(events) == [("bed-3", 0, {"heart_rate": 63.0})]
    assert left(events) == {("unknown-place", "(no code)^PV1-3"): 2}
    events = ward.take("PV1||I|ICU^3", hr("63"), "PV1||I|ER^1", hr("99"))
    assert (records(events), left(events)) == (
        [("bed-3", 0, {"heart_rate": 63.0})],
        {("unknown-place", "*:1^PV1-3"): 1},
    )
    for place, shown in (("ICU^9^B", "ICU:9:B"), ("SMITH^JOHN", "*:*"), ("ICUX^12345678", "*:*"), ("^ER12", ":ER12")):
        assert left(ward.take(f"PV1||I|{place}", hr())) == {("unknown-place", f"{shown}^PV1-3"): 1}


def test_the_longest_known_beginning_of_a_place_says_which_bed_it_is() -> None:
    beds = Beds("ward", {"ICU": "icu", "ICU^3^": "room", "ICU^3^B": Bed(stream="bed")})
    found = {place: beds.find(place) for place in ("ICU^9", "ICU^3^A^HOSP", "ICU^3^B^HOSP", "ICUX", "", "^3")}
    assert [bed.stream if bed is not None else "" for bed in found.values()] == ["icu", "room", "bed", "", "", ""]


@pytest.mark.parametrize(
    ("beds", "everywhere"),
    [
        ({}, None),
        ({"A": "x"}, Bed(stream="y")),
        ({"A": "x", "B": "x"}, None),
        ({"A": "x", "A^": "y"}, None),
        ({"^": "x"}, None),
        ({"A": Bed(stream="x", session_streams=("x-ecg",)), "B": "x-ecg"}, None),
        ({"A": "not an id"}, None),
        ({"A": Bed(stream="x", waves={"II": "w1", "V1": "w1"})}, None),
        ({"A": Bed(stream="x", waves={"II": "x"})}, None),
        ({}, Bed(stream="x", waves={"II": "w1", "V1": "w1"})),
        ({}, Bed(stream="x", waves={"II": "x"})),
    ],
)
def test_beds_that_contradict_themselves_are_refused(beds, everywhere) -> None:
    with pytest.raises((ConfigError, MalformedError)):
        Beds("ward", beds, everywhere)


def test_test_messages_are_left_out_unless_the_configuration_says_what_they_are() -> None:
    head = HEAD.replace("|P|", "|T|")
    events = Ward().take(hr("61~62"), head=head)
    assert (records(events), left(events)) == ([], {("not-wanted", "MSH-11^T"): 2})
    (record,) = Ward(tests="simulated").take(hr(), head=head)
    assert record.quality == Quality.SIMULATED
    (record,) = Ward(tests="take").take(hr(), head=head)
    assert record.quality == Quality.GOOD
    (record,) = Ward().take(hr().replace("|||||F", "||DEMO|||F"))
    assert record.quality == Quality.SIMULATED


@pytest.mark.parametrize(("kind", "what"), [("ORM^O01", "ORM^O01"), ("ADT^A08", "ADT^A08"), ("ORU^R01", "ORU^R01")])
def test_messages_that_say_nothing_wanted_count_once(kind, what) -> None:
    assert left(Ward({"A": "a"}).take("PV1||I|A", kind=kind)) == {("not-wanted", what): 1}


def test_a_wrong_clock_of_a_sender_is_measured_and_put_right_where_that_is_wanted() -> None:
    behind = T0 + 600 * NS
    ward = Ward()
    assert records(ward.take(hr(time="20260301075959"), arrived_ns=behind)) == [("bed", -1, {"heart_rate": 61.0})]
    assert ward.context.gauge.clock_offset_s == -600.0
    ward = Ward(clock="arrival")
    assert records(ward.take(hr(time="20260301075959"), arrived_ns=behind)) == [("bed", 599, {"heart_rate": 61.0})]
    bare = "MSH|^~\\&|||||||{kind}|{id}|P|2.3"
    assert records(ward.take(hr(), arrived_ns=behind, head=bare)) == [("bed", 600, {"heart_rate": 61.0})]


# --- times


@pytest.mark.parametrize(
    ("text", "zone", "iso"),
    [
        ("202603010800", "UTC", "2026-03-01T08:00:00"),
        ("20260301080000.25-0430", "Europe/Berlin", "2026-03-01T12:30:00.250000"),
        ("20260701080000", "Europe/Berlin", "2026-07-01T06:00:00"),
        ("20261025023000+0100", "Europe/Berlin", "2026-10-25T01:30:00"),
    ],
)
def test_times_with_and_without_an_offset(text, zone, iso) -> None:
    expected = datetime.fromisoformat(iso).replace(tzinfo=UTC).timestamp()
    assert time_ns(text, ZoneInfo(zone)) // 1000 == round(expected * 1e6)


@pytest.mark.parametrize("text", ["20260301080000+0060", "20260301080000+2400", "19691231235959+0000"])
def test_an_offset_that_is_none_and_a_time_before_all_times(text) -> None:
    with pytest.raises(MalformedError):
        time_ns(text, UTC)


def test_an_hour_that_comes_twice_counts_where_the_clock_of_the_arrival_does_and_for_who_comes() -> None:
    second, zone = 1_792_891_800 * NS, ZoneInfo("Europe/Berlin")
    for text in ("20261025023000", "20260329023000"):
        with pytest.raises(MalformedError):
            time_ns(text, zone)
    bare = "MSH|^~\\&|||||20261025023000||{kind}|{id}|P|2.3"
    told = {"arrived_ns": second + NS, "head": bare}
    assert left(Ward(BED_3, zone=zone).take("PV1||I|ICU^4", hr(), **told)) == {("bad-time", "147842^MDC [264864]"): 1}
    assert records(Ward(zone=zone, clock="arrival").take(hr(), **told))[0][1] == (second + NS - T0) // NS
    (mark,) = Ward(BED_3, zone=zone).take("PV1||I|ICU^4", kind="ADT^A01", **told)
    assert mark.start_ns == second


def test_an_hour_that_comes_twice_is_the_one_near_its_arrival_or_none() -> None:
    zone, first, second = ZoneInfo("Europe/Berlin"), 1_792_888_200 * NS, 1_792_891_800 * NS
    assert time_ns("20261025023000", zone, first + 5 * NS) == first
    assert time_ns("20261025023000", zone, second + 5 * NS) == second
    with pytest.raises(MalformedError):
        time_ns("20261025023000", zone, second + 7_200 * NS)


# --- waveforms

WAVE = (
    "OBR|1|||69121^MDC_OBS_WAVE_CTS^MDC|||20260301080000",
    "OBX|1|NA|131330^MDC_ECG_ELEC_POTL_II^MDC|1.2.3.131330|{values}|266418^MDC_DIM_MILLI_VOLT^MDC|||||F",
    "OBX|2|NM|0^MDC_ATTR_SAMP_RATE^MDC|1.2.3.131330.1|{rate}|{unit}|||||F",
    "OBX|3|NM|0^MDC_ATTR_NU_MSMT_RES^MDC|1.2.3.131330.2|0.005|266418^MDC_DIM_MILLI_VOLT^MDC|||||F",
)
LEADS = {"ICU^3": Bed(stream="bed-3", waves={"131330": "lead-ii", "MDC_PRESS_BLD_ART": "art"})}


def wave(values="1^-2^3", rate="250", unit="264608^MDC_DIM_PER_SEC^MDC", without=-1, second=0) -> list[str]:
    lines = [line.format(values=values, rate=rate, unit=unit) for line in WAVE]
    lines[0] = lines[0].replace("080000", f"0800{second:02}")
    return ["PV1||I|ICU^3", *(line for number, line in enumerate(lines) if number != without)]


def test_an_array_with_its_attributes_is_signal_in_pieces_of_40_ms() -> None:
    values = np.arange(250) - 100
    events = Ward(LEADS).take(*wave("^".join(map(str, values))), kind="ORU^W01^ORU_W01")
    assert all(isinstance(event, Block) for event in events)
    assert [event.start_ns - T0 for event in events] == [40_000_000 * number for number in range(25)]
    assert np.array_equal(np.concatenate([event.values for event in events])[:, 0], values)
    first = events[0]
    assert (first.stream, first.rate_hz, first.unit, first.metric, first.scale, first.values.dtype) == (
        *("lead-ii", 250.0, "mV", "MDC_ECG_ELEC_POTL_II", 0.005, np.int16),
    )


@pytest.mark.parametrize(
    ("values", "dtype"),
    [("1^40000", "int32"), ("1^0.5", "float32"), ("1^-32768", "int16"), ("1^5000000000", "float32")],
)
def test_samples_take_the_smallest_type_that_holds_them(values, dtype) -> None:
    (block,) = Ward(LEADS).take(*wave(values), kind="ORU^W01")
    assert block.values.dtype == dtype


def test_a_sample_period_is_a_rate_and_attributes_of_the_only_array_need_no_number() -> None:
    period = "OBX|2|NM|0^MDC_ATTR_TIME_PD_SAMP^MDC||8|264338^MDC_DIM_MILLI_SEC^MDC"
    (block,) = Ward(LEADS).take(*wave(without=2), period, kind="ORU^W01")
    assert block.rate_hz == 125.0


@pytest.mark.parametrize(
    "lines",
    [
        wave(without=2),
        wave(unit=""),
        wave(rate="0"),
        wave(rate="fast"),
        wave(rate="1e9"),
        wave("1^^3"),
        wave("1^x^3"),
        wave("1^1e39"),
        wave("1^nan"),
        wave("1_0^2"),
        wave("1\\.br\\2^2^3"),
        wave("1&9^2"),
        wave("1^2~3^4"),
        [line.replace("|0.005|266418^MDC_DIM_MILLI_VOLT", "|0.005|266419^MDC_DIM_MICRO_VOLT") for line in wave()],
        [line.replace("131330", "999").replace("_II^", "_X^") for line in wave()],
        [line.replace("|NA|", "|MA|") for line in wave()],
    ],
)
def test_an_array_that_does_not_say_all_that_a_signal_needs_is_left_out(lines) -> None:
    events = Ward(LEADS).take(*lines, kind="ORU^W01")
    assert not any(isinstance(event, Block | Record) for event in events)
    assert [reason for reason, _ in left(events)] == ["not-wanted"]
    assert sum(left(events).values()) == 1


@pytest.mark.parametrize("said", ["|||||D", "|||||W", "|||||X", "|||||P", "||INV|||F", "||L~OFF|||F"])
def test_an_array_that_is_not_as_measured_is_none(said) -> None:
    lines = wave()
    lines[2] = lines[2].replace("|||||F", said)
    assert dict(left(Ward(LEADS).take(*lines, kind="ORU^W01"))) == {("bad-status", "131330^MDC [266418]"): 1}


@pytest.mark.parametrize("which", [3, 4])
@pytest.mark.parametrize("said", ["|||||D", "||INV|||F"])
def test_an_array_whose_rate_or_scale_is_not_as_measured_is_none(which, said) -> None:
    lines = wave()
    lines[which] = lines[which].replace("|||||F", said)
    assert [reason for reason, _ in left(Ward(LEADS).take(*lines, kind="ORU^W01"))] == ["not-wanted"]


def test_an_array_with_two_rates_or_a_rate_that_is_no_number_is_none() -> None:
    twice = [*wave(), wave(rate="500")[3].replace("131330.1|", "131330.3|")]
    for lines in (twice, wave(rate="2_50")):
        assert not any(isinstance(one, Block) for one in Ward(LEADS).take(*lines, kind="ORU^W01"))


def test_an_array_of_a_demonstration_says_so() -> None:
    lines = wave()
    lines[2] = lines[2].replace("|||||F", "||TEST|||F")
    (block,) = Ward(LEADS).take(*lines, kind="ORU^W01")
    assert block.quality == Quality.SIMULATED


def test_an_attribute_without_its_array_is_left_out() -> None:
    events = Ward(LEADS).take(*wave(without=1), kind="ORU^W01")
    assert {reason for reason, _ in left(events)} <= {"unknown-code", "not-wanted"}
    assert sum(left(events).values()) == 2


def test_signal_that_is_stored_already_is_dropped_and_counted_and_rounding_is_mended() -> None:
    ward = Ward(LEADS, ends={"lead-ii": T0 + 2_000_000})
    (block,) = ward.take(*wave(), kind="ORU^W01")
    assert block.start_ns == T0 + 2_000_000
    assert ward.take(*wave(), kind="ORU^W01") == []
    assert ward.context.gauge.dropped == 3
    assert len(ward.take(*wave(second=1), kind="ORU^W01")) == 1


# --- who comes and who leaves


def test_admission_transfer_and_discharge_open_and_close_all_streams_of_a_bed() -> None:
    ward = Ward(BED_3)
    late = {"arrived_ns": T0 + 500 * NS}
    come = ward.take(evn(10), "PV1||I|ICU^3^B", kind="ADT^A01^ADT_A01", **late)
    assert marks(come) == [("bed-3", OPEN, 10), ("bed-3-ecg", OPEN, 10)]
    move = ward.take(evn(20), "PV1||I|ICU^4|||ICU^3^B", kind="ADT^A02", **late)
    assert marks(move) == [("bed-3", CLOSE, 20), ("bed-3-ecg", CLOSE, 20), ("bed-4", OPEN, 20)]
    gone = ward.take(evn(30), "PV1||I|ICU^4", kind="ADT^A03", **late)
    assert marks(gone) == [("bed-4", CLOSE, 30)]
    assert (left(come), left(move), left(gone), ward.intake.sessions.ignored) == ({}, {}, {}, 0)


def test_observations_in_adt_count_and_stand_on_the_right_side_of_the_session() -> None:
    ward = Ward(BED_3)
    come = ward.take(evn(0), "PV1||I|ICU^3", hr(), kind="ADT^A01")
    assert [type(event).__name__ for event in come] == ["Mark", "Mark", "Record"]
    gone = ward.take(evn(0), "PV1||I|ICU^3", hr("62", time="20260301080001"), kind="ADT^A03", arrived_ns=T0 + 2 * NS)
    assert [type(event).__name__ for event in gone] == ["Record", "Mark", "Mark"]
    assert records(ward.take("PV1||I|ICU^3", hr("63"), kind="ADT^A08")) == [("bed-3", 0, {"heart_rate": 63.0})]


def test_what_is_older_than_the_last_word_or_comes_again_changes_nothing_and_is_counted() -> None:
    ward = Ward(BED_3)
    late = {"arrived_ns": T0 + 500 * NS}
    assert len(marks(ward.take(evn(100), "PV1||I|ICU^3", kind="ADT^A01", **late))) == 2
    for kind, second in (("ADT^A01", 100), ("ADT^A01", 90), ("ADT^A03", 99)):
        assert ward.take(evn(second), "PV1||I|ICU^3", kind=kind, **late) == []
    assert ward.intake.sessions.ignored == 3
    assert len(marks(ward.take(evn(100), "PV1||I|ICU^3", kind="ADT^A03", **late))) == 2


def test_a_session_begins_behind_what_is_stored_and_signal_from_before_it_is_nobodys() -> None:
    ward = Ward(LEADS)
    assert len(marks(ward.take(evn(0), "PV1||I|ICU^3", kind="ADT^A03"))) == 3
    ward.ends = {"art": T0 + 4 * NS}
    late = {"arrived_ns": T0 + 50 * NS}
    found = marks(ward.take(evn(2), "PV1||I|ICU^3", kind="ADT^A01", **late))
    assert found == [("bed-3", OPEN, 2), ("lead-ii", OPEN, 2), ("art", OPEN, 2)]
    assert ward.intake.sessions.late == 1
    events = ward.take(*wave(second=1), hr(time="20260301080001"), kind="ORU^W01", **late)
    assert left(events) == {("bad-time", "131330^MDC [266418]"): 1}
    assert records(events) == [("bed-3", 1, {"heart_rate": 61.0})], "the buffer knows whose it is"
    assert len(ward.take(*wave(second=2), kind="ORU^W01", **late)) == 1


def test_a_restart_goes_on_where_the_stored_sessions_are() -> None:
    stored = {"bed-3": (T0 + 10 * NS, "adt"), "bed-3-ecg": (T0 + 12 * NS, "gap")}
    ward = Ward(BED_3, sessions=stored, ends={"bed-4": T0 + 30 * NS})
    late = {"arrived_ns": T0 + 500 * NS}
    assert ward.take(evn(10), "PV1||I|ICU^3", kind="ADT^A01", **late) == []
    assert ward.take(evn(30), "PV1||I|ICU^4", kind="ADT^A03", **late) == []
    assert marks(ward.take(evn(20), "PV1||I|ICU^3", kind="ADT^A03", **late)) == [
        *(("bed-3", CLOSE, 20), ("bed-3-ecg", CLOSE, 20))
    ]


def test_nobody_comes_later_than_that_is_told() -> None:
    found = marks(Ward(BED_3).take(evn(50), "PV1||I|ICU^4", kind="ADT^A01", arrived_ns=T0 + 3 * NS))
    assert found == [("bed-4", OPEN, 3)]


@pytest.mark.parametrize(
    ("segments", "kind", "expected"),
    [
        ((evn(1), "PV1||I|ER^1"), "ADT^A01", {("unknown-place", "ADT^A01"): 1}),
        ((evn(1), "PV1||I|ICU^4"), "ADT^A02", {("unknown-place", "ADT^A02"): 1}),
        ((evn(1),), "ADT^A03", {("unknown-place", "ADT^A03"): 1}),
        (("EVN||soon", "PV1||I|ICU^4"), "ADT^A01", {("bad-time", "ADT^A01"): 1}),
    ],
)
def test_a_move_that_cannot_be_placed_is_counted(segments, kind, expected) -> None:
    assert left(Ward(BED_3).take(*segments, kind=kind)) == expected


def test_a_listener_for_one_bed_does_not_know_whose_adt_it_hears() -> None:
    events = Ward().take(evn(1), "PV1||I|ICU^3", kind="ADT^A01")
    assert (marks(events), left(events)) == ([], {("not-wanted", "ADT^A01"): 1})


def test_nothing_of_a_message_counts_that_cannot_be_read_to_its_end() -> None:
    ward = Ward(BED_3)
    with pytest.raises(MalformedError):
        ward.take(evn(1), "PV1||I|ICU^3", "OBX|1|NA|x||" + "1^" * 65_536, kind="ADT^A01")
    assert len(marks(ward.take(evn(1), "PV1||I|ICU^3", kind="ADT^A01"))) == 2


@pytest.mark.parametrize("segments", [[hr()] * 2_001, [hr("61" + "~61" * 2_000)]])
def test_a_message_with_more_readings_than_the_loop_can_spare_is_refused(segments) -> None:
    with pytest.raises(MalformedError, match="hl7-size"):
        Ward().take(*segments)


# --- messages of others


@pytest.mark.parametrize(
    ("name", "count", "reasons"),
    [
        ("ORU-R01-01.hl7", 6, {"not-wanted", "bad-status", "bad-time"}),
        ("ORU-multiline-short.hl7", 3, {"unknown-code"}),
        ("ORU-multiline-short-mixed.hl7", 4, {"unknown-code"}),
    ],
)
def test_messages_of_other_projects_are_read_and_accounted_for(name, count, reasons) -> None:
    data = os.environ.get("BEDSIDE_DATA") or Path(__file__).parents[4] / "shared" / "data"
    folder = Path(data) / "device_fixtures" / "hl7v2"
    if not folder.is_dir():
        pytest.skip(f"no device fixtures in {folder}")
    message = read_message((folder / name).read_bytes())
    ward = Ward(tests="take")
    events = ward.intake.take(message, ward.offset, T0)
    assert records(events) == []
    assert sum(left(events).values()) == count
    assert {reason for reason, _ in left(events)} <= reasons
    assert StreamId("bed") not in {getattr(event, "stream", "") for event in events}
