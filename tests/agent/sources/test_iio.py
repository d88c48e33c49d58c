"""A tree of industrial IO that is made up, with a FIFO for the device node."""

from __future__ import annotations

import asyncio
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.agent.config import SourceConfig
from bedside.agent.sources.iio import buffer as iio_buffer
from bedside.agent.sources.iio.source import IioPolls
from bedside.agent.sources.kind import SourceContext, SourceGauge
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.errors import ConfigError
from bedside.core.samples import Block, Event, Quality, Record, Unmapped
from supervised import running, until

S = 1_000_000_000
PERIOD = S // 100
T0 = 1_700_000_000 * S


class Clock:
    """Wall time stands; the source's own sleep moves it."""

    ns = T0

    def now_ns(self) -> int:
        return self.ns

    def monotonic_s(self) -> float:
        return (self.ns - T0) / 1e9

    async def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * S)
        await asyncio.sleep(0)


def folder(root: Path, number: int = 0, name: str = "lsm6dso") -> Path:
    made = root / "sys/bus/iio/devices" / f"iio:device{number}"
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    return made


@pytest.fixture
def tree(tmp_path) -> Path:
    """An accelerometer with a buffer at 100 Hz, and a node."""
    made = folder(tmp_path)
    for name in ("scan_elements", "buffer"):
        (made / name).mkdir()
    for index, (axis, form) in enumerate(
        [
            ("accel_x", "le:s16/16>>0"),
            ("accel_y", "le:s16/16>>0"),
            ("accel_z", "le:s12/16>>4"),
            ("temp", "be:s16/16>>0"),
        ]
    ):
        element(made, axis, index, form)
    element(made, "timestamp", 9, "le:s64/64>>0")
    files = {
        "buffer/enable": "0",
        "in_accel_scale": "0.000598",
        "sampling_frequency": "100.0",
        "current_timestamp_clock": "realtime",
        "in_temp_scale": "7.8125",
        "in_temp_offset": "3200",
    }
    for name, text in files.items():
        (made / name).write_text(f"{text}\n")
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev" / "iio:device0")
    return tmp_path


def element(made: Path, name: str, index: int, form: str) -> None:
    for ending, text in (("en", "0"), ("index", str(index)), ("type", form)):
        (made / "scan_elements" / f"in_{name}_{ending}").write_text(f"{text}\n")


def source(root: Path, clock: Any = None, **options: Any) -> tuple[Any, SourceGauge]:
    gauge = SourceGauge()
    given = {"stream": "bed1", "device": "lsm6dso", "channels": ["accel_x", "accel_y", "accel_z"], "buffered": True}
    given["root"] = str(root)
    config = SourceConfig(kind="iio", name="imu", options={**given, **options})
    context = SourceContext(clock or Clock(), lambda _s: 0, Path("/"), gauge=gauge)
    return build_source("iio", typed_source(config), context), gauge


def scan(at: int, stamp_ns: int) -> bytes:
    return struct.pack("<hhH", at, -at, at << 4 & 0xFFFF) + b"??" + struct.pack("<q", stamp_ns)


def samples(events: list[Event]) -> list[list[int]]:
    return [row for e in events if isinstance(e, Block) for row in e.values.tolist()]


def blocks(events: list[Event]) -> list[Block]:
    return [e for e in events if isinstance(e, Block)]


async def test_a_buffer_is_set_up_read_to_the_last_scan_and_switched_off(tree) -> None:
    built, gauge = source(tree)
    made = tree / "sys/bus/iio/devices/iio:device0"
    async with running(built) as (events, _health):
        await until(lambda: gauge.connected is True)
        enabled = {path.name for path in (made / "scan_elements").glob("*_en") if path.read_text().strip() == "1"}
        assert enabled == {"in_accel_x_en", "in_accel_y_en", "in_accel_z_en", "in_timestamp_en"}
        assert (made / "buffer/enable").read_text() == "1"
        node = os.open(tree / "dev/iio:device0", os.O_WRONLY)
        sent = b"".join(scan(at, T0 - S + at * PERIOD) for at in range(50))
        os.write(node, sent[:100])
        await until(lambda: len(samples(events)) == 6)
        os.write(node, sent[100:])
        await until(lambda: len(samples(events)) == 50)
        os.close(node)
        await until(lambda: (made / "buffer/enable").read_text() == "0" or gauge.connected is True)
    assert samples(events) == [[at, -at, at] for at in range(50)]
    assert {(b.unit, b.scale, b.rate_hz, b.values.dtype.name) for b in blocks(events)} == {
        ("m/s2", 0.000598, 100.0, "int16")
    }
    assert max(len(b.values) for b in blocks(events)) == 4
    start, expected = blocks(events)[0].start_ns, 0
    assert start == T0 - S
    for block in blocks(events):
        assert block.start_ns == start + expected * PERIOD
        expected += len(block.values)
    assert [b.quality for b in blocks(events)] == [Quality.GAP_BEFORE] + [Quality.GOOD] * (len(blocks(events)) - 1)
    assert (made / "buffer/enable").read_text() == "0"


async def test_a_lost_device_is_opened_again_and_nothing_that_it_sent_is_lost(tree) -> None:
    built, gauge = source(tree)
    async with running(built) as (events, health):
        for lap in range(2):
            await until(lambda: gauge.connected is True)
            node = os.open(tree / "dev/iio:device0", os.O_WRONLY)
            os.write(node, b"".join(scan(at, T0 + lap * S + at * PERIOD) for at in range(10)))
            os.close(node)
            await until(lambda lap=lap: len(samples(events)) == 10 * (lap + 1) and health["imu"].errors == lap + 1)
        assert health["imu"].last_error.startswith("iio-lost")
    assert samples(events) == [[at, -at, at] for at in range(10)] * 2
    assert [at for at, b in enumerate(blocks(events)) if b.quality & Quality.GAP_BEFORE] == [0, 3]


async def test_scans_that_the_kernel_dropped_leave_a_gap_as_long_as_they_were(tree) -> None:
    built, gauge = source(tree)
    async with running(built) as (events, _health):
        await until(lambda: gauge.connected is True)
        node = os.open(tree / "dev/iio:device0", os.O_WRONLY)
        os.write(node, b"".join(scan(at, T0 + at * PERIOD) for at in range(20) if not 8 <= at < 12))
        await until(lambda: len(samples(events)) == 16)
        os.close(node)
    gaps = [b for b in blocks(events) if b.quality & Quality.GAP_BEFORE]
    assert [(b.start_ns - T0) // PERIOD for b in gaps] == [0, 12]
    assert gauge.dropped == 4


async def test_a_sensor_that_is_slower_than_it_says_tells_its_rate(tree) -> None:
    built, gauge = source(tree)
    async with running(built) as (events, _health):
        await until(lambda: gauge.connected is True)
        node = os.open(tree / "dev/iio:device0", os.O_WRONLY)
        for lap in range(12):
            os.write(node, b"".join(scan(at, T0 + (lap * 96 + at) * S // 96) for at in range(96)))
            await until(lambda lap=lap: len(samples(events)) == 96 * (lap + 1))
        os.close(node)
    assert gauge.detail == "96 Hz measured"


async def test_a_buffer_that_delivers_nothing_is_set_up_again(tree, monkeypatch) -> None:
    monkeypatch.setattr(iio_buffer, "_SILENT_S", 0.01)
    monkeypatch.setattr(iio_buffer, "_SILENT_SCANS", 1)
    built, _gauge = source(tree)
    async with running(built) as (_events, health):
        await until(lambda: health["imu"].errors >= 2)
        assert health["imu"].last_error.startswith("iio-silent")


async def test_a_clock_that_is_set_is_a_gap_of_which_nothing_is_counted(tree) -> None:
    built, gauge = source(tree)
    async with running(built) as (events, _health):
        await until(lambda: gauge.connected is True)
        node = os.open(tree / "dev/iio:device0", os.O_WRONLY)
        for lap, begin_ns in enumerate((T0 - 3600 * S, T0, T0 - 600 * S)):
            os.write(node, b"".join(scan(at, begin_ns + at * PERIOD) for at in range(4)))
            await until(lambda lap=lap: len(samples(events)) == 4 * (lap + 1))
        os.close(node)
    assert [at for at, b in enumerate(blocks(events)) if b.quality & Quality.GAP_BEFORE] == [0, 1, 2]
    assert gauge.dropped == 0


@pytest.mark.parametrize("clock", ["monotonic", "realtime"])
async def test_times_of_another_clock_are_not_taken_for_ours(tree, clock: str) -> None:
    (tree / "sys/bus/iio/devices/iio:device0/current_timestamp_clock").write_text(clock)
    built, gauge = source(tree)
    async with running(built) as (events, _health):
        await until(lambda: gauge.connected is True)
        node = os.open(tree / "dev/iio:device0", os.O_WRONLY)
        os.write(node, b"".join(scan(at, 77 * S + at * PERIOD) for at in range(10)))
        await until(lambda: len(samples(events)) == 10)
        os.close(node)
    assert blocks(events)[0].start_ns == T0 - 10 * PERIOD


async def test_channels_with_an_offset_come_as_physical_values(tree) -> None:
    built, gauge = source(tree, channels=["temp"])
    async with running(built) as (events, _health):
        await until(lambda: gauge.connected is True)
        node = os.open(tree / "dev/iio:device0", os.O_WRONLY)
        os.write(node, struct.pack(">h", -384) + b"??????" + struct.pack("<q", T0))
        await until(lambda: bool(events))
        os.close(node)
    (block,) = blocks(events)
    assert (block.unit, block.scale, block.values.dtype) == ("Cel", 1.0, np.float32)
    assert block.values[0, 0] == pytest.approx((-384 + 3200) * 7.8125e-3)


async def test_a_sample_at_its_rail_is_saturated(tree) -> None:
    built, gauge = source(tree, channels=["accel_z"])
    async with running(built) as (events, _health):
        await until(lambda: gauge.connected is True)
        node = os.open(tree / "dev/iio:device0", os.O_WRONLY)
        for value in (2046, 2047):
            os.write(node, struct.pack("<H", value << 4) + b"??????" + struct.pack("<q", T0))
        await until(lambda: len(samples(events)) == 2)
        os.close(node)
    assert bool(blocks(events)[-1].quality & Quality.SATURATED)


async def test_a_buffer_that_another_program_set_up_is_left_as_it_is(tree) -> None:
    made = tree / "sys/bus/iio/devices/iio:device0"
    (made / "buffer/enable").write_text("1")
    for name in ("accel_x", "accel_y"):
        (made / f"scan_elements/in_{name}_en").write_text("1")
    built, gauge = source(tree, channels=["accel_y"])
    async with running(built) as (events, _health):
        await until(lambda: gauge.connected is True)
        node = os.open(tree / "dev/iio:device0", os.O_WRONLY)
        os.write(node, struct.pack("<4h", 1, 2, 3, 4))
        await until(lambda: len(samples(events)) == 2)
        os.close(node)
    assert samples(events) == [[2], [4]]
    assert (made / "buffer/enable").read_text() == "1"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"channels": ["gyro"]}, "iio-channel"),
        ({"channels": ["accel_x", "temp"]}, "iio-units"),
        ({"device": "bme280"}, "iio-missing"),
    ],
)
async def test_what_the_device_does_not_have_is_named(tree, options: dict[str, Any], says: str) -> None:
    built, _gauge = source(tree, **options)
    async with running(built) as (_events, health):
        await until(lambda: health["imu"].errors >= 1)
        assert health["imu"].last_error.startswith(says)
    assert (tree / "sys/bus/iio/devices/iio:device0/buffer/enable").read_text().strip() == "0"


async def test_a_device_that_does_not_say_its_rate_needs_it_said(tree) -> None:
    (tree / "sys/bus/iio/devices/iio:device0/sampling_frequency").unlink()
    built, _gauge = source(tree)
    async with running(built) as (_events, health):
        await until(lambda: health["imu"].errors >= 1)
        assert health["imu"].last_error.startswith("iio-rate")
    built, gauge = source(tree, rate_hz=50.0)
    async with running(built):
        await until(lambda: gauge.connected is True)


async def polled(root: Path, count: int, **options: Any) -> list[Event]:
    clock = Clock()
    built, _gauge = source(root, clock, buffered=False, device="iio:device0", **options)
    assert isinstance(built, IioPolls)
    built._sleep = clock.sleep
    events: list[Event] = []
    async for event in built.events():
        events.append(event)
        if len(events) == count:
            break
    return events


async def test_a_slow_sensor_is_asked_every_period(tmp_path) -> None:
    made = folder(tmp_path)
    for name, text in {
        "in_temp_raw": "2176", "in_temp_scale": "10", "in_temp_offset": "1500", "in_humidityrelative_input": "41250",
    }.items():  # fmt: skip
        (made / name).write_text(text)
    fields = {"temp_skin": {"code": "temp"}, "humidity": {"code": "humidityrelative", "unit": "%"}}
    events = await polled(tmp_path, 3, channels=["temp", "humidityrelative"], every_s=2.0, fields=fields)
    assert [e.time_ns for e in events if isinstance(e, Record)] == [T0, T0 + 2 * S, T0 + 4 * S]
    assert isinstance(events[0], Record)
    assert events[0].values == {"temp_skin": pytest.approx(36.76), "humidity": pytest.approx(41.25)}


async def test_a_channel_that_does_not_answer_has_no_value_and_one_that_lies_is_counted(tmp_path) -> None:
    made = folder(tmp_path)
    (made / "in_temp_raw").mkdir()  # reading it is an error, as of a sensor that is busy
    (made / "in_pressure_input").write_text("n/a")
    fields = {"temp_skin": {"code": "temp"}, "pressure": {"unit": "kPa"}}
    record, unmapped = await polled(tmp_path, 2, channels=["temp", "pressure"], fields=fields)
    assert isinstance(record, Record)
    assert math.isnan(record.values["temp_skin"])
    assert record.quality & Quality.SENSOR_OFF
    assert isinstance(unmapped, Unmapped)
    assert (unmapped.reason, unmapped.what) == ("not-a-number", "pressure^IIO")


async def test_a_differential_channel_uses_the_scale_of_its_kind(tmp_path) -> None:
    made = folder(tmp_path)
    for name, text in {
        "in_voltage0-voltage1_raw": "100",
        "in_voltage-voltage_scale": "0.5",
        "in_voltage_scale": "9",
    }.items():
        (made / name).write_text(text)
    fields = {"bridge": {"code": "voltage0-voltage1", "unit": "mV"}}
    (record,) = await polled(tmp_path, 1, channels=["voltage0-voltage1"], fields=fields)
    assert isinstance(record, Record)
    assert record.values == {"bridge": 50.0}


async def test_two_devices_of_one_name_are_told_apart_by_their_numbers(tmp_path) -> None:
    for number in (0, 1):
        made = folder(tmp_path, number, "tmp117")
        (made / "in_temp_input").write_text("36500")
    built, _gauge = source(tmp_path, buffered=False, device="tmp117", channels=["temp"])
    with pytest.raises(ConfigError, match="several"):
        await anext(built.events())


async def test_a_device_that_is_gone_is_missing(tmp_path) -> None:
    made = folder(tmp_path)
    (made / "in_temp_input").write_text("36500")
    built, gauge = source(
        tmp_path, buffered=False, channels=["temp"], fields={"temp_skin": {"code": "temp"}}, every_s=0.01
    )
    async with running(built) as (events, health):
        await until(lambda: bool(events))
        (made / "in_temp_input").unlink()
        await until(lambda: health["imu"].errors >= 1)
        assert health["imu"].last_error.startswith("iio-missing")
        assert gauge.connected is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": []},
        {"channels": ["../x"]},
        {"channels": ["temp", "temp"]},
        {"every_s": 0.0},
        {"every_s": math.nan},
        {"rate_hz": -1.0},
        {"rate_hz": math.inf},
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        source(tmp_path, **wrong)
