"""What becomes of readings: values in one unit under one name, no value where the device has none, or a reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.errors import ConfigError
from bedside.core.ids import StreamId
from bedside.core.samples import Quality
from bedside.core.vocabulary.mdc import TERMS
from bedside.core.vocabulary.normaliser import FieldRule, Normaliser
from bedside.core.vocabulary.quantities import QUANTITIES
from bedside.core.vocabulary.reading import Measured, Reading, Reason, Unusable

BED = StreamId("bed-4")
NOW = 1_800_000_000_000_000_000


def mdc(code: int, value: float | str | None, unit: str = "", **more: object) -> Reading:
    return Reading(str(code), value, "MDC", unit, **more)  # type: ignore[arg-type]  # the rest of a reading's fields


def measure(reading: Reading, **fields: FieldRule) -> Measured | Unusable:
    return Normaliser("ward", fields).measure(reading)


def value(reading: Reading, **fields: FieldRule) -> float:
    result = measure(reading, **fields)
    assert isinstance(result, Measured), result
    return result.value


def reason(reading: Reading, **fields: FieldRule) -> Reason:
    result = measure(reading, **fields)
    assert isinstance(result, Unusable), result
    return result.reason


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (mdc(147842, 72.0, "264864"), Measured("heart_rate", 72.0, "/min", "MDC_ECG_HEART_RATE")),
        (mdc(150456, "97", "%"), Measured("spo2", 97.0, "%", "MDC_PULS_OXIM_SAT_O2")),
        (mdc(19384, 97, "MDC_DIM_PERCENT"), Measured("spo2", 97.0, "%", "MDC_PULS_OXIM_SAT_O2")),
        (Reading("MDC_RESP_RATE", 14.0, unit="rpm"), Measured("resp_rate", 14.0, "/min", "MDC_RESP_RATE")),
        (Reading("8867-4", 72, "LN", "bpm"), Measured("heart_rate", 72.0, "/min")),
        (Reading("8310-5", 98.6, "http://loinc.org", "[degF]"), Measured("temp_body", 37.0, "Cel")),
        (mdc(150364, 37.2, "C"), Measured("temp_body", 37.2, "Cel", "MDC_TEMP_BODY")),
        (mdc(150301, 120, "mmHg"), Measured("nibp_systolic", 120.0, "mm[Hg]", "MDC_PRESS_CUFF_SYS")),
        (mdc(150021, 120, "mm[Hg]"), Measured("nibp_systolic", 120.0, "mm[Hg]", "MDC_PRESS_BLD_NONINV_SYS")),
        (mdc(150017, 120, "mm[Hg]"), Measured("bp_systolic", 120.0, "mm[Hg]", "MDC_PRESS_BLD_SYS")),
        (mdc(151708, 38, "mmHg"), Measured("etco2", 38.0, "mm[Hg]", "MDC_CONC_AWAY_CO2_ET")),
        (mdc(151708, 5, "%"), Measured("etco2_fraction", 5.0, "%", "MDC_CONC_AWAY_CO2_ET")),
        (mdc(160184, 5.5, "mmol/L"), Measured("glucose", 99.0858, "mg/dL", "MDC_CONC_GLU_CAPILLARY_WHOLEBLOOD")),
        (mdc(188736, 154, "MDC_DIM_LB"), Measured("weight", 69.85322498, "kg", "MDC_MASS_BODY_ACTUAL")),
    ],
)
def test_codes_and_units_of_wards(reading: Reading, expected: Measured) -> None:
    assert measure(reading) == expected


@pytest.mark.parametrize("sentinel", [-999, -99.9, -1, 8388607, "-999", "-1.0"])
@pytest.mark.parametrize("status", ["F", "X", ""])
@pytest.mark.parametrize("code", [147842, 150456, 150021])
def test_what_monitors_send_for_no_value_is_nan(sentinel: float | str, status: str, code: int) -> None:
    unit = {147842: "bpm", 150456: "%", 150021: "mmHg"}[code]
    assert math.isnan(value(mdc(code, sentinel, unit, status=status)))


def test_minus_one_is_a_value_where_the_quantity_can_be_that() -> None:
    assert value(mdc(160108, -1, "mmol/L")) == -1.0  # base excess
    assert value(mdc(150087, -1, "mmHg")) == -1.0  # central venous pressure
    assert value(mdc(131841, -1, "mV")) == -1.0  # ST
    assert reason(mdc(150364, -1, "Cel")) is Reason.OUT_OF_RANGE  # no body, but no sentinel either
    assert reason(mdc(150364, -1, "[degF]")) is Reason.OUT_OF_RANGE
    assert math.isnan(value(mdc(150364, -99.9, "Cel")))
    assert math.isnan(value(mdc(160108, -99.9, "mmol/L")))


@pytest.mark.parametrize("text", ["98,6", "9 8", "<5", ">90", "12 (L)", "++", "abc", "1_000", "0x10", "7" * 65])
def test_text_that_is_no_number_is_never_guessed(text: str) -> None:
    assert reason(mdc(150456, text, "%")) is Reason.NOT_A_NUMBER
    assert reason(mdc(150456, "\N{FULLWIDTH DIGIT SEVEN}", "%")) is Reason.NOT_A_NUMBER


def test_a_truth_value_is_no_number() -> None:
    assert reason(mdc(150456, True, "%")) is Reason.NOT_A_NUMBER  # as JSON has it


@pytest.mark.parametrize("number", [math.inf, -math.inf, "1e999", 10**400, 101, -5, 1e300])
def test_what_the_quantity_cannot_be_is_left_out(number: float | str) -> None:
    assert reason(mdc(150456, number, "%")) is Reason.OUT_OF_RANGE


@pytest.mark.parametrize("number", [None, "", "  ", math.nan, "NaN"])
def test_an_empty_field_says_that_there_is_no_value(number: float | str | None) -> None:
    assert math.isnan(value(mdc(150456, number, "%")))
    assert math.isnan(value(mdc(151708, number)))


def test_a_device_that_says_its_probe_is_off_has_no_value() -> None:
    assert math.isnan(value(mdc(150456, 97, "%", valid=False)))
    assert math.isnan(value(mdc(150456, "any words", "%", status="X")))


@pytest.mark.parametrize("status", ["C", "D", "P", "W", "preliminary", "entered-in-error", "corrected", "?"])
def test_what_was_not_measured_now_is_left_out(status: str) -> None:
    assert reason(mdc(150456, 97, "%", status=status)) is Reason.BAD_STATUS


@pytest.mark.parametrize("status", ["", "F", "R", "f", "final"])
def test_final_and_raw_results_are_values(status: str) -> None:
    assert value(mdc(150456, 97, "%", status=status)) == 97


@pytest.mark.parametrize(
    "reading",
    [
        Reading("150456", 97, "", "%"),
        Reading("8867-4", 72, "", "bpm"),
        Reading("hr", 72, "", "bpm"),
        Reading("147842", 72, "99LOCAL", "bpm"),
        mdc(999_999, 1, "%"),
        mdc(160208, 99, "mg/dL"),  # control solution is nobody's glucose
        Reading("", 1.0),
    ],
)
def test_a_code_that_does_not_say_what_it_is_is_unknown(reading: Reading) -> None:
    assert reason(reading) is Reason.UNKNOWN_CODE


@pytest.mark.parametrize("unit", ["", "furlong", "mmHg", "266016", "C"])
def test_a_unit_that_is_missing_or_does_not_convert_is_unknown(unit: str) -> None:
    assert reason(mdc(147842, 72, unit)) is Reason.UNKNOWN_UNIT


def test_a_rule_gives_local_codes_a_name_a_unit_and_bounds() -> None:
    rule = FieldRule(code="HR1", sent_unit="bpm", channel="1", missing=(0.0,))
    with pytest.raises(ConfigError, match="cannot be sent in"):
        Normaliser("ward", {"heart_rate": rule})
    rule = FieldRule(code="HR1", sent_unit="/min", channel="1", missing=(0.0,))
    assert value(Reading("HR1", 72, channel="1"), heart_rate=rule) == 72
    assert math.isnan(value(Reading("HR1", 0, channel="1"), heart_rate=rule))
    assert math.isnan(value(Reading("HR1", -1, channel="1"), heart_rate=rule))
    assert reason(Reading("HR1", 500, channel="1"), heart_rate=rule) is Reason.OUT_OF_RANGE
    assert reason(Reading("HR1", 72, channel="2"), heart_rate=rule) is Reason.RULED_OUT
    assert reason(Reading("HR1", "Lead off", channel="1"), heart_rate=rule) is Reason.NOT_A_NUMBER


def test_a_rule_with_a_unit_of_its_own_has_the_bounds_in_it() -> None:
    rule = FieldRule(code="150364", system="MDC", unit="[degF]")
    assert measure(mdc(150364, 37, "Cel"), temp_body=rule) == Measured("temp_body", 98.6, "[degF]", "MDC_TEMP_BODY")
    assert reason(mdc(150364, 130, "[degF]"), temp_body=rule) is Reason.OUT_OF_RANGE


def test_a_field_of_its_own_has_the_unit_it_is_given_and_no_sentinels() -> None:
    rule = FieldRule(unit="10*3/uL", sent_unit="10*3/uL")
    assert measure(Reading("wbc", 7.5), wbc=rule) == Measured("wbc", 7.5, "10*3/uL")
    assert value(Reading("wbc", 7.5, unit="10*3/uL"), wbc=rule) == 7.5
    assert reason(Reading("wbc", 7.5, unit="10*9/L"), wbc=rule) is Reason.UNKNOWN_UNIT
    assert value(Reading("score", -1), score=FieldRule()) == -1
    assert reason(Reading("score", math.inf), score=FieldRule()) is Reason.OUT_OF_RANGE
    assert math.isnan(value(Reading("score", -1), score=FieldRule(low=0)))


@pytest.mark.parametrize("code", ["150456", "59408-5", "MDC_PULS_OXIM_SAT_O2"])
def test_a_rule_for_any_system_knows_what_its_code_stands_for(code: str) -> None:
    rule = FieldRule(code=code)
    sent = Reading(code, 91, "LN" if "-" in code else "MDC", "%")
    assert value(sent, spo2_foot=rule) == 91
    assert reason(Reading(code, 910, sent.system, "%"), spo2_foot=rule) is Reason.OUT_OF_RANGE


def test_a_short_number_is_a_local_code() -> None:
    assert value(Reading("769", 4.2, "L", "mmol/L"), potassium=FieldRule(code="769", unit="mmol/L")) == 4.2


def test_a_rule_takes_a_plain_pressure_for_a_cuffs() -> None:
    rule = FieldRule(code="150017", system="MDC")
    assert measure(mdc(150017, 120, "mmHg"), nibp_systolic=rule) == Measured(
        "nibp_systolic", 120.0, "mm[Hg]", "MDC_PRESS_BLD_SYS"
    )


def test_a_field_with_a_rule_is_filled_by_that_rule_alone() -> None:
    rule = FieldRule(code="150456", system="MDC", channel="1.3.1.150456")
    assert value(mdc(150456, 97, "%", channel="1.3.1.150456"), spo2=rule) == 97
    assert reason(mdc(150456, 91, "%", channel="1.3.2.150456"), spo2=rule) is Reason.RULED_OUT
    assert reason(Reading("59408-5", 91, "LN", "%"), spo2=rule) is Reason.RULED_OUT


@pytest.mark.parametrize(
    "fields",
    [
        {"heart_rate": FieldRule(unit="mm[Hg]")},
        {"own": FieldRule(code="147842", system="MDC", unit="%")},
        {"spo2": FieldRule(low=100, high=90)},
        {"spo2": FieldRule(low=math.nan)},
        {"spo2": FieldRule(sent_unit="kg")},
        {"own": FieldRule(unit="x" * 65)},
        {"own": FieldRule(unit="a\nb")},
        {"one": FieldRule(code="x"), "two": FieldRule(code="x")},
        {"": FieldRule(code="x")},
        {"x" * 65: FieldRule(code="x")},
        {f"field-{n}": FieldRule() for n in range(129)},
    ],
)
def test_a_field_that_contradicts_itself_is_refused(fields: dict[str, FieldRule]) -> None:
    with pytest.raises(ConfigError) as refused:
        Normaliser("ward", fields)
    assert refused.value.code == "source-config"
    assert refused.value.remedy


def test_the_same_value_twice_is_stored_once_and_counted() -> None:
    two = [mdc(150456, 97, "%", channel="1.3.1"), mdc(150456, "97.0", "262688", channel="1.3.2")]
    record, left = Normaliser("ward").record(BED, NOW, two, NOW)
    assert record is not None
    assert record.values == {"spo2": 97.0}
    assert [(one.reason, one.count) for one in left] == [("duplicate", 1)]


def test_two_different_values_of_one_quantity_are_both_left_out() -> None:
    two = [mdc(150456, 97, "%", channel="1.3.1"), mdc(150456, 91, "%", channel="1.3.2"), mdc(147842, 72, "bpm")]
    record, left = Normaliser("ward").record(BED, NOW, two, NOW)
    assert record is not None
    assert record.values == {"heart_rate": 72.0}
    assert [(one.reason, one.what, one.count) for one in left] == [("ambiguous", "150456^MDC [%]", 2)]


def test_a_channel_rule_says_which_of_two_is_meant() -> None:
    two = [mdc(150456, 97, "%", channel="1.3.1"), mdc(150456, 91, "%", channel="1.3.2")]
    fields = {
        "spo2": FieldRule(code="150456", system="MDC", channel="1.3.1"),
        "spo2_foot": FieldRule(code="150456", system="MDC", channel="1.3.2"),
    }
    record, left = Normaliser("ward", fields).record(BED, NOW, two, NOW)
    assert record is not None
    assert record.values == {"spo2": 97.0, "spo2_foot": 91.0}
    assert record.units == {"spo2": "%", "spo2_foot": "%"}
    assert not left


def test_a_rule_with_a_channel_comes_before_one_without() -> None:
    fields = {"spo2": FieldRule(code="150456"), "spo2_foot": FieldRule(code="150456", channel="1.3.2")}
    two = [mdc(150456, 97, "%", channel="1.3.1"), mdc(150456, 91, "%", channel="1.3.2")]
    for ordered in (fields, dict(reversed(fields.items()))):
        record, _ = Normaliser("ward", ordered).record(BED, NOW, two, NOW)
        assert record is not None
        assert record.values == {"spo2": 97.0, "spo2_foot": 91.0}


def test_no_value_gives_way_to_a_value() -> None:
    two = [mdc(150456, None, "%", channel="1.3.1"), mdc(150456, 91, "%", channel="1.3.2")]
    record, left = Normaliser("ward").record(BED, NOW, two, NOW)
    assert record is not None
    assert record.values == {"spo2": 91.0}
    assert record.quality is Quality.GOOD
    assert [one.reason for one in left] == ["duplicate"]


def test_a_record_without_any_number_says_that_the_sensor_is_off() -> None:
    readings = [mdc(150456, -1, "%"), mdc(147842, None)]
    record, left = Normaliser("ward").record(BED, NOW, readings, NOW, Quality.SIMULATED)
    assert record is not None
    assert record.quality == Quality.SENSOR_OFF | Quality.SIMULATED
    assert all(math.isnan(one) for one in record.values.values())
    assert not left


def test_a_time_that_cannot_be_leaves_all_out() -> None:
    readings = [mdc(150456, 97, "%"), mdc(147842, 72, "bpm")]
    record, left = Normaliser("ward").record(BED, 1_000, readings, NOW)
    assert record is None
    assert [(one.reason, one.count, one.time_ns) for one in left] == [("bad-time", 1, NOW)] * 2


def test_a_time_far_ahead_is_left_out_until_all_of_its_stream_have_been_for_a_minute() -> None:
    ward, second = Normaliser("ward"), 10**9
    readings = [mdc(147842, 72, "bpm")]

    def taken(stream: StreamId, ahead_s: int, now_s: int) -> bool:
        now_ns = NOW + now_s * second
        return ward.record(stream, now_ns + ahead_s * second, readings, now_ns)[0] is not None

    assert taken(BED, 300, 0)
    assert not taken(BED, 301, 1)
    assert taken(BED, 0, 2)
    other = StreamId("bed-5")
    assert [taken(other, 3_600, now) for now in (10, 40, 69, 70, 71)] == [False, False, False, True, True]
    assert not taken(BED, 3_600, 72)


def test_nothing_understood_is_no_record() -> None:
    record, left = Normaliser("ward").record(BED, NOW, [Reading("PID", "Huckleberry Finn")], NOW)
    assert record is None
    assert [(one.source, one.reason, one.what) for one in left] == [("ward", "unknown-code", "PID")]
    assert Normaliser("ward").record(BED, NOW, [], NOW) == (None, [])


READINGS = st.builds(
    Reading,
    st.sampled_from(["150456", "147842", "150021", "150301", "160184", "150364", "hr", "8867-4", "MDC_TEMP_BODY", "?"]),
    st.none() | st.floats() | st.sampled_from(["97", "<5", "", "-1", "98.6", "1e999"]) | st.just(-999.0),
    st.sampled_from(["MDC", "LN", "", "L"]),
    st.sampled_from(["", "%", "bpm", "mmHg", "[degF]", "Cel", "mmol/L", "?"]),
    st.sampled_from(["", "1", "2"]),
    st.booleans(),
    st.sampled_from(["", "F", "X", "C"]),
)


@given(st.lists(READINGS, max_size=20), st.sampled_from([NOW, 0, NOW + 2 * 86_400 * 10**9]))
def test_what_comes_in_is_what_is_stored_and_what_is_left_out(readings: list[Reading], time_ns: int) -> None:
    fields = {"heart_rate": FieldRule(code="hr", unit="/min"), "spo2": FieldRule(code="150456", channel="1")}
    for rules in (None, fields):
        record, left = Normaliser("ward", rules).record(BED, time_ns, readings, NOW)
        stored = len(record.values) if record else 0
        assert stored + sum(one.count for one in left) == len(readings)
        for field, number in (record.values if record else {}).items():
            quantity = QUANTITIES[field]
            assert math.isnan(number) or quantity.low <= number <= quantity.high
            assert record is not None
            assert record.units[field] == quantity.unit


def test_what_is_left_out_never_shows_a_value() -> None:
    secret = Reading("NAME", "Finn", "", "text")
    _, left = Normaliser("ward").record(BED, NOW, [secret], NOW)
    assert "Finn" not in repr(left)


def test_terms_are_context_free_codes_of_their_partition() -> None:
    assert all(code >> 16 == 2 for code in TERMS)
    assert len({term.reference for term in TERMS.values()}) == len(TERMS)
