"""Real bleak against a stand-in for BlueZ on a bus of its own."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bleak import BleakClient
from bleak.exc import BleakError
from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.config import SourceConfig
from bedside.agent.formats.gatt import DECODERS, decode_report
from bedside.agent.sources.ble import adapter, link
from bedside.agent.sources.ble.beat_times import BeatTimes
from bedside.agent.sources.ble.link import BleLink
from bedside.agent.sources.ble.source import BleSource
from bedside.agent.sources.kind import SourceContext, SourceGauge
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.samples import Event, Quality, Record, Unmapped
from bedside.service.platform import SystemClock
from fake_bluez import FakeBluez, fake_bluez
from supervised import running, until

BELT = "AA:BB:CC:DD:EE:01"
OXIMETER = "AA:BB:CC:DD:EE:02"
CUFF = "AA:BB:CC:DD:EE:03"
HEART_RATE, CONTINUOUS, PRESSURE, BATTERY = 0x2A37, 0x2A5F, 0x2A35, 0x2A19


@pytest.fixture
async def bluez(tmp_path, monkeypatch) -> AsyncIterator[FakeBluez]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("no dbus-daemon here (apt-get install dbus)")
    async with fake_bluez(tmp_path) as fake:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.bus_address)
        fake.add_device(
            BELT, "Belt", {0x180D: {HEART_RATE: ["notify"]}, 0x180F: {BATTERY: ["read", "notify"]}}, paired=True
        )
        fake.set_value(BELT, BATTERY, bytes([87]))
        fake.add_device(OXIMETER, "Oximeter", {0x1822: {CONTINUOUS: ["notify"]}})
        fake.add_device(CUFF, "Cuff", {0x1810: {PRESSURE: ["indicate"]}})
        yield fake


def source(now: Any = None, **options: Any) -> tuple[BleSource, SourceGauge]:
    gauge = SourceGauge()
    config = SourceConfig(kind="ble", name="belt", options={"stream": "bed1", "profiles": ["heart_rate"], **options})
    context = SourceContext(now or SystemClock(), lambda _stream: 0, Path(), gauge=gauge)
    built = build_source("ble", typed_source(config), context)
    assert isinstance(built, BleSource)
    return built, gauge


def rates(events: list[Event]) -> list[float]:
    return [e.values["heart_rate"] for e in events if isinstance(e, Record) and "heart_rate" in e.values]


async def test_nothing_is_lost_through_a_malformed_notification_a_lost_device_and_its_return(bluez) -> None:
    belt, gauge = source(address=BELT.lower())
    async with running(belt) as (events, health):
        await until(lambda: bluez.notifies(BELT, HEART_RATE) and gauge.connected is True)
        for bpm in range(60, 100):
            bluez.notify(BELT, HEART_RATE, bytes([0, bpm]))
        bluez.notify(BELT, HEART_RATE, b"\x01\x48")
        bluez.notify(BELT, HEART_RATE, bytes([0, 100]))
        bluez.drop(BELT)
        await until(lambda: bluez.connections.get(BELT) == 2 and bluez.notifies(BELT, HEART_RATE))
        bluez.notify(BELT, HEART_RATE, bytes([0, 101]))
        await until(lambda: 101 in rates(events))
        assert gauge.connected is True
    assert rates(events) == list(range(60, 102))
    assert [(e.source, e.reason, e.what, e.count) for e in events if isinstance(e, Unmapped)] == [
        ("belt", "bad-message", "2a37", 1)
    ]
    assert (gauge.connected, gauge.dropped) == (False, 0)
    assert health["belt"].last_error.startswith("ble-lost")


async def test_what_a_device_tells_before_it_is_set_up_is_kept_though_it_hangs_up(bluez, monkeypatch) -> None:
    async def hang(_link: BleLink, client: BleakClient) -> None:
        await until(lambda: not client.is_connected)
        raise BleakError("not connected")

    monkeypatch.setattr(BleLink, "_watch_battery", hang)
    belt, _ = source(address=BELT)
    async with running(belt) as (events, health):
        await until(lambda: bluez.notifies(BELT, HEART_RATE))
        bluez.notify(BELT, HEART_RATE, bytes([0, 60]))
        bluez.drop(BELT)
        await until(lambda: health["belt"].errors > 0)
        assert health["belt"].last_error.startswith("ble-refused")
        assert rates(events) == [60]


async def test_health_tells_of_pairing_and_battery(bluez) -> None:
    belt, gauge = source(address=BELT)
    async with running(belt):
        await until(lambda: bluez.notifies(BELT, BATTERY) and gauge.connected is True)
        assert gauge.detail == "paired, battery 87 %"
        bluez.notify(BELT, BATTERY, bytes([86]))
        await until(lambda: gauge.detail == "paired, battery 86 %")
        bluez.notify(BELT, BATTERY, bytes([255]))
        bluez.notify(BELT, BATTERY, bytes([85]))
        await until(lambda: gauge.detail != "paired, battery 86 %")
        assert gauge.detail == "paired, battery 85 %"


async def test_beats_have_a_stream_of_their_own_whose_distances_are_the_intervals(bluez) -> None:
    belt, _gauge = source(device="Belt")
    async with running(belt) as (events, _health):
        await until(lambda: bluez.notifies(BELT, HEART_RATE))
        bluez.notify(BELT, HEART_RATE, bytes.fromhex("10 48 0004 0003"))
        bluez.notify(BELT, HEART_RATE, bytes.fromhex("14 00 0004"))
        await until(lambda: len(events) >= 5)
    records = [e for e in events if isinstance(e, Record)]
    beats = [e for e in records if e.stream == "bed1-rr"]
    assert [e.values["rr_interval"] for e in beats[:2]] == [1000.0, 750.0]
    assert [b.time_ns - a.time_ns for a, b in itertools.pairwise(beats)] == [750_000_000, 1_000_000_000]
    assert beats[2].values["rr_interval"] != beats[2].values["rr_interval"]
    assert [e.quality for e in records] == [Quality.GOOD] * 3 + [Quality.SENSOR_OFF] * 2
    assert {e.stream for e in records} == {"bed1", "bed1-rr"}


async def test_sources_share_one_scan_and_a_device_that_is_away_holds_up_nobody(bluez, monkeypatch) -> None:
    bluez.hide(OXIMETER)
    belt, belt_gauge = source(address=BELT)
    oximeter, gauge = source(address=OXIMETER, profiles=["pulse_oximeter"], stream="bed2")
    oximeter.name = "oximeter"
    async with running(belt, oximeter) as (events, _health):
        await until(lambda: belt_gauge.connected is True)
        assert bluez.scans == 1
        assert gauge.connected is False
        bluez.hide(OXIMETER, hidden=False)
        await until(lambda: gauge.connected is True)
        assert bluez.scans == 1
        bluez.notify(OXIMETER, CONTINUOUS, bytes.fromhex("00 6200 4800"))
        await until(lambda: bool(events))
    (record,) = events
    assert isinstance(record, Record)
    assert record.values == {"spo2": 98.0, "pulse_rate": 72.0}


async def test_a_device_that_does_not_show_itself_is_away(bluez, monkeypatch) -> None:
    monkeypatch.setattr(link, "_FIND_S", 0.05)
    bluez.hide(BELT)
    belt, _gauge = source(address=BELT)
    async with running(belt) as (_events, health):
        await until(lambda: health["belt"].errors >= 2)
        assert health["belt"].last_error.startswith("ble-away")
        bluez.hide(BELT, hidden=False)
        await until(lambda: bluez.notifies(BELT, HEART_RATE))


async def test_a_device_that_refuses_is_tried_again(bluez) -> None:
    bluez.refuse(BELT)
    belt, _gauge = source(address=BELT)
    async with running(belt) as (_events, health):
        await until(lambda: health["belt"].errors >= 2)
        assert health["belt"].last_error.startswith("ble-refused")
        bluez.refuse(BELT, refused=False)
        await until(lambda: bluez.notifies(BELT, HEART_RATE))


async def test_a_bluez_that_dies_is_noticed_and_its_successor_used(bluez, monkeypatch) -> None:
    monkeypatch.setattr(link, "_FIND_S", 0.2)
    belt, gauge = source(address=BELT)
    async with running(belt) as (events, health):
        await until(lambda: gauge.connected is True)
        bluez.notify(BELT, HEART_RATE, bytes([0, 60]))
        await until(lambda: rates(events) == [60])
        await bluez.crash()
        await until(lambda: health["belt"].errors >= 2)
        assert gauge.connected is False
        await bluez.come_back()
        await until(lambda: gauge.connected is True and bluez.notifies(BELT, HEART_RATE))
        bluez.notify(BELT, HEART_RATE, bytes([0, 61]))
        await until(lambda: rates(events) == [60, 61])


async def test_a_device_that_bluez_forgets_is_looked_for_again(bluez) -> None:
    belt, gauge = source(address=BELT)
    async with running(belt) as (events, health):
        await until(lambda: gauge.connected is True)
        bluez.forget(BELT)
        await until(lambda: health["belt"].errors >= 1 and gauge.connected is True and bluez.notifies(BELT, HEART_RATE))
        bluez.notify(BELT, HEART_RATE, bytes([0, 61]))
        await until(lambda: rates(events) == [61])


async def test_a_device_that_was_left_connected_is_used_without_a_scan(bluez) -> None:
    first, gauge = source(address=BELT)
    bluez.hide(BELT)
    bluez.connect(BELT)
    async with running(first):
        await until(lambda: gauge.connected is True)
    assert (bluez.scans, bluez.connections) == (0, {})


async def test_a_scan_is_begun_anew_now_and_then_for_bluez_may_have_forgotten_it(bluez, monkeypatch) -> None:
    monkeypatch.setattr(adapter, "_RENEW_S", -1.0)
    bluez.hide(BELT)
    bluez.hide(OXIMETER)
    belt, _gauge = source(address=BELT)
    oximeter, _gauge = source(address=OXIMETER, profiles=["pulse_oximeter"], stream="bed2")
    oximeter.name = "oximeter"
    async with running(belt, oximeter):
        await until(lambda: bluez.scans == 2)


@pytest.mark.parametrize("method", ["Disconnect", "StopDiscovery"])
async def test_a_bluez_that_hangs_holds_up_no_end(bluez, monkeypatch, method: str) -> None:
    for module in (link, adapter):
        monkeypatch.setattr(module, "PART_S", 0.05)
    bluez.hanging.add(method)
    bluez.hide(BELT, hidden=method == "StopDiscovery")
    belt, gauge = source(address=BELT)
    async with asyncio.timeout(5), running(belt):
        await until(lambda: bluez.scans == 1 if method == "StopDiscovery" else gauge.connected is True)


async def test_a_bluez_that_hangs_is_given_up(bluez, monkeypatch) -> None:
    monkeypatch.setattr(link, "_SET_UP_S", 0.2)
    bluez.hanging.add("StartNotify")
    belt, _gauge = source(address=BELT)
    async with running(belt) as (_events, health):
        await until(lambda: health["belt"].errors >= 1)
        assert health["belt"].last_error.startswith("ble-refused")


async def test_a_device_of_another_profile_is_named(bluez) -> None:
    cuff, _gauge = source(address=CUFF)
    async with running(cuff) as (_events, health):
        await until(lambda: health["belt"].errors >= 1)
        assert "0x180d" in health["belt"].last_error


async def test_without_bluez_the_source_waits(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    belt, gauge = source(address=BELT)
    async with running(belt) as (_events, health):
        await until(lambda: health["belt"].errors >= 2)
        assert health["belt"].last_error.startswith("ble-refused")
    assert gauge.connected is False


class At:
    def __init__(self, moment: datetime) -> None:
        self.ns = int(moment.timestamp()) * 10**9

    def now_ns(self) -> int:
        return self.ns

    def monotonic_s(self) -> float:
        return 0.0


AT = "ea07031a0e1e0f"  # 2026-03-26 14:30:15 of the cuff's clock
ARRIVED = datetime(2026, 3, 26, 13, 30, 5, tzinfo=UTC)


@pytest.fixture
def cuff_reads() -> Iterator[Callable[..., tuple[list[Event], SourceGauge]]]:
    def read(text: str, **options: Any) -> tuple[list[Event], SourceGauge]:
        cuff, gauge = source(At(ARRIVED), address=CUFF, profiles=["blood_pressure"], **options)
        return list(cuff._read(link.Notification(PRESSURE, bytes.fromhex(text), cuff_time))), gauge

    cuff_time = int(ARRIVED.timestamp()) * 10**9
    return read


def test_a_cuffs_own_time_counts_in_its_zone(cuff_reads) -> None:
    (record,), gauge = cuff_reads(f"02 7900 4b00 5c00 {AT}", time_zone="Europe/Berlin")
    assert record.time_ns == int(ARRIVED.timestamp() + 10) * 10**9
    assert record.values == {"nibp_systolic": 121.0, "nibp_diastolic": 75.0, "nibp_mean": 92.0}
    assert gauge.clock_offset_s == 10.0


def test_arrival_counts_where_the_device_has_no_clock_or_a_wrong_one(cuff_reads) -> None:
    arrived_ns = int(ARRIVED.timestamp()) * 10**9
    assert cuff_reads("00 7900 4b00 5c00")[0][0].time_ns == arrived_ns
    assert cuff_reads(f"02 7900 4b00 5c00 {AT}", clock="arrival")[0][0].time_ns == arrived_ns


@pytest.mark.parametrize("at", ["ea070d1a0e1e0f", "0406010101010f", "0f27010101010f", "ea07041a0e1e0f"])
def test_a_time_that_no_calendar_or_column_has_is_left_out(cuff_reads, at: str) -> None:
    (left_out,), _gauge = cuff_reads(f"02 7900 4b00 5c00 {at}")
    assert (left_out.reason, left_out.count) == ("bad-time", 3)


def test_readings_of_another_user_are_left_out(cuff_reads) -> None:
    (left_out,), _gauge = cuff_reads("08 7900 4b00 5c00 02", user=1)
    assert (left_out.reason, left_out.count) == ("unknown-place", 3)
    (record,), _gauge = cuff_reads("08 7900 4b00 5c00 01", user=1)
    assert record.values["nibp_mean"] == 92.0


@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=24), st.sampled_from(["sender", "arrival"]))
def test_every_reading_becomes_a_value_or_is_counted(characteristic: int, value: bytes, clock: str) -> None:
    belt, _gauge = source(At(ARRIVED), address=BELT, clock=clock, user=1)
    events = belt._read(link.Notification(characteristic, value, int(ARRIVED.timestamp()) * 10**9))
    try:
        report = decode_report(characteristic, value)
        sent = len(report.readings) + len(report.intervals)
    except MalformedError:
        sent = 1
    assert sum(len(e.values) if isinstance(e, Record) else e.count for e in events) == sent


def test_what_nobody_takes_in_time_is_counted_by_its_readings() -> None:
    belt, gauge = source(address=BELT)
    belt._drop(link.Notification(HEART_RATE, bytes.fromhex("10 48 0004 0003"), 1))
    belt._drop(link.Notification(HEART_RATE, b"", 1))
    assert gauge.dropped == 4


@pytest.mark.parametrize(
    "wrong",
    [{}, {"address": BELT, "device": "x"}, {"address": BELT, "profiles": []}, {"address": BELT, "profiles": ["x"]}],
)
def test_options_that_name_no_device_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        source(**wrong)


def test_an_unknown_time_zone_is_refused() -> None:
    for zone in ("Mars/Base", "../etc", ""):
        with pytest.raises(ConfigError, match="time zone"):
            source(address=BELT, time_zone=zone)


def test_beats_never_go_back_and_follow_the_arrival_again_after_a_gap() -> None:
    beats = BeatTimes(5_000_000_000)
    assert beats.of([1.0, 0.5], 6_000_000_000) == [6_000_000_000, 6_500_000_000]
    assert beats.of([0.0, 0.0], 6_500_000_000) == [6_500_000_001, 6_500_000_002]
    assert beats.of([1.0], 60_000_000_000) == [60_000_000_000]
    assert beats.of([1.0], 9_000_000_000) == [61_000_000_000]
