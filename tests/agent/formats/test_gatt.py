"""Notifications of Bluetooth health devices."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from bedside.agent.formats.gatt import DECODERS, MAX_VALUE_BYTES, Report, decode_report
from bedside.core.errors import MalformedError
from bedside.core.samples import Quality

DATA = Path(os.environ.get("BEDSIDE_DATA", Path(__file__).parents[4] / "shared" / "data"))
NAN, NRES, INFINITE = "ff07", "0008", "fe07"
AT = "ea07031a0e1e0f"  # 2026-03-26 14:30:15


def read(characteristic: int, text: str) -> Report:
    return decode_report(characteristic, bytes.fromhex(text))


def told(report: Report) -> list[tuple[str, float | str | None, str]]:
    return [(one.code, one.value, one.unit) for one in report.readings]


@pytest.mark.parametrize(
    ("text", "bpm"), [("0048", 72.0), ("01 4800", 72.0), ("01 2c01", 300.0), ("06ff", 255.0), ("02 50", 80.0)]
)
def test_a_heart_rate_has_one_byte_or_two(text: str, bpm: float) -> None:
    report = read(0x2A37, text)
    assert told(report) == [("147842", bpm, "/min")]
    assert report.readings[0].valid
    assert report.quality == Quality.GOOD


def test_a_belt_without_contact_has_no_heart_rate() -> None:
    report = read(0x2A37, "14 48 0004")
    assert not report.readings[0].valid
    assert not report.intervals[0].valid
    assert report.quality == Quality.SENSOR_OFF


def test_energy_and_beat_intervals_follow_the_heart_rate() -> None:
    report = read(0x2A37, "1e 48 3412 0004 0003")
    assert told(report) == [("147842", 72.0, "/min"), ("MDC_HF_ENERGY", 4660.0, "kJ")]
    assert [beat.value for beat in report.intervals] == [1.0, 0.75]
    assert {beat.unit for beat in report.intervals} == {"s"}


def test_the_recorded_belt_is_read_as_it_was_published() -> None:
    path = DATA / "device_fixtures" / "ble" / "heart_rate_measurement.json"
    if not path.exists():
        pytest.skip(f"no fixtures at {path}")
    for one in json.loads(path.read_text()):
        report, expected = read(0x2A37, one["hex"]), one["expect"]
        assert report.readings[0].value == expected["hr_bpm"]
        assert report.readings[0].valid is expected["contact"]
        assert [beat.value for beat in report.intervals] == expected["rr_s"]


def test_a_spot_check_has_a_time_and_says_what_the_sensor_lacks() -> None:
    report = read(0x2A5E, f"0f 6200 4800 {AT} 2000 0000 00 17f0")
    assert told(report) == [("150456", 98.0, "%"), ("149530", 72.0, "/min"), ("150488", 2.3, "%")]
    assert report.time == datetime(2026, 3, 26, 14, 30, 15)  # noqa: DTZ001 - the device has no zone
    assert all(one.valid for one in report.readings)


def test_a_spot_check_whose_clock_is_not_set_has_no_time() -> None:
    assert read(0x2A5E, f"11 6200 4800 {AT}").time is None


def test_a_continuous_oximeter_tells_its_three_averages_apart() -> None:
    report = read(0x2A5F, "03 6200 4800 6100 4900 6300 4700")
    assert told(report) == [
        ("150456", 98.0, "%"),
        ("149530", 72.0, "/min"),
        ("spo2_fast", 97.0, "%"),
        ("pulse_rate_fast", 73.0, "/min"),
        ("spo2_slow", 99.0, "%"),
        ("pulse_rate_slow", 71.0, "/min"),
    ]


@pytest.mark.parametrize(
    ("status", "sensor", "valid", "quality"),
    [
        ("0000", "000000", True, Quality.GOOD),
        ("2000", "1f0000", False, Quality.GOOD),  # equipment malfunction among milder words
        ("2000", "1d0000", True, Quality.GOOD),
        ("0000", "000800", False, Quality.SENSOR_OFF),
        ("0000", "002000", False, Quality.SENSOR_OFF),
        ("0000", "008000", False, Quality.SENSOR_OFF),
        ("0000", "001000", False, Quality.GOOD),
        ("0020", "000000", False, Quality.GOOD),
        ("0080", "000000", False, Quality.GOOD),
        ("0010", "000000", False, Quality.GOOD),
        ("0004", "000000", True, Quality.SIMULATED),
        ("0008", "000000", True, Quality.SIMULATED),
    ],
)
def test_an_oximeters_status_decides_what_its_numbers_are_worth(
    status: str, sensor: str, valid: bool, quality: Quality
) -> None:
    report = read(0x2A5F, f"0c 6200 4800 {status} {sensor}")
    assert [one.valid for one in report.readings] == [valid, valid]
    assert report.quality == quality
    assert not report.stored


def test_a_measurement_from_storage_says_so() -> None:
    assert read(0x2A5F, "04 6200 4800 0002").stored


@pytest.mark.parametrize("special", [NAN, NRES, INFINITE, "0208", "0108"])
def test_a_special_number_is_a_reading_without_a_value(special: str) -> None:
    spo2, pulse = read(0x2A5F, f"00 {special} 4800").readings
    assert (spo2.value, spo2.valid) == (None, False)
    assert (pulse.value, pulse.valid) == (72.0, True)


def test_a_thermometer_says_unit_time_and_place() -> None:
    report = read(0x2A1C, f"07 {'cb0300ff'} {AT} 06")
    assert told(report) == [("150364", 97.1, "[degF]")]
    assert report.readings[0].channel == "mouth"
    assert report.time == datetime(2026, 3, 26, 14, 30, 15)  # noqa: DTZ001 - the device has no zone
    assert told(read(0x2A1C, "00 6e0100ff")) == [("150364", 36.6, "Cel")]
    assert told(read(0x2A1C, "00 ffff7f00")) == [("150364", None, "Cel")]


def test_a_cuff_says_its_user_and_whether_it_sat() -> None:
    report = read(0x2A35, f"1e 7900 4b00 5c00 {AT} 5000 02 0200")
    assert told(report) == [
        ("150021", 121.0, "mm[Hg]"),
        ("150022", 75.0, "mm[Hg]"),
        ("150023", 92.0, "mm[Hg]"),
        ("149546", 80.0, "/min"),
    ]
    assert report.user == 2
    assert report.quality == Quality.SENSOR_OFF
    assert read(0x2A35, "10 7900 4b00 5c00 0500").quality == Quality.GOOD


def test_a_cuff_in_kilopascal_and_without_a_mean() -> None:
    report = read(0x2A35, f"01 a1f0 64f0 {NAN}")
    assert told(report) == [("150021", 16.1, "kPa"), ("150022", 10.0, "kPa"), ("150023", None, "kPa")]


def test_an_intermediate_pressure_is_that_of_the_cuff_alone() -> None:
    assert told(read(0x2A36, f"00 9600 {NAN} {NAN}")) == [("150300", 150.0, "mm[Hg]")]


@pytest.mark.parametrize(
    ("at", "bad"),
    [("0000031a0e1e0f", False), ("ea07001a0e1e0f", False), ("ea070d1a0e1e0f", True), ("ea07021e0e1e0f", True)],
)
def test_an_unknown_time_is_none_and_an_impossible_one_is_bad(at: str, bad: bool) -> None:
    report = read(0x2A1C, f"02 6e0100ff {at}")
    assert report.time is None
    assert report.bad_time is bad


@pytest.mark.parametrize(
    ("characteristic", "text"),
    [
        (0x2A37, ""),
        (0x2A37, "00"),
        (0x2A37, "01 48"),
        (0x2A37, "00 48 00"),
        (0x2A37, "10 48"),
        (0x2A37, "10 48 0004 00"),
        (0x2A5F, "00 6200 48"),
        (0x2A5E, "01 6200 4800 ea07"),
        (0x2A1C, "00 6e0100"),
        (0x2A1C, "00 6e0100ff 00"),
        (0x2A35, "04 7900 4b00 5c00"),
        (0x2A36, "00 9600"),
        (0x2A37, "00" * (MAX_VALUE_BYTES + 1)),
    ],
)
def test_what_its_flags_do_not_announce_is_malformed(characteristic: int, text: str) -> None:
    with pytest.raises(MalformedError):
        read(characteristic, text)


@pytest.mark.parametrize("characteristic", [one for one in DECODERS if one != 0x2A37])
def test_a_flag_of_a_later_specification_may_bring_more_bytes(characteristic: int) -> None:
    report = decode_report(characteristic, b"\x80" + bytes(12))
    assert report.readings
