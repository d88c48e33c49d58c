"""An Ivy 450C monitor at the other end of a pty."""

from __future__ import annotations

import math
import os
import tty
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.config import SourceConfig
from bedside.agent.formats.ivy450c import Packet, read_line
from bedside.agent.sources import ivy450c
from bedside.agent.sources.ivy450c import IvySource
from bedside.agent.sources.kind import SourceContext, SourceGauge
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.errors import ConfigError, MalformedError, UnavailableError
from bedside.core.samples import Block, Event, Quality, Record, Unmapped
from ivy_packets import LINES, packet

S = 1_000_000_000
T0 = 1_700_000_000 * S


class Clock:
    def __init__(self) -> None:
        self.ns = T0

    def now_ns(self) -> int:
        return self.ns

    def monotonic_s(self) -> float:
        return self.ns / 1e9


@contextmanager
def monitor() -> Iterator[tuple[int, str]]:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    try:
        yield ours, os.ttyname(theirs)
    finally:
        os.close(theirs)


def source(port: str, clock: Clock, **options: Any) -> tuple[IvySource, SourceGauge]:
    gauge = SourceGauge()
    config = SourceConfig(kind="ivy450c", name="ivy", options={"stream": "bed1", "port": port, **options})
    built = build_source("ivy450c", typed_source(config), SourceContext(clock, lambda _s: 0, Path(), gauge=gauge))
    assert isinstance(built, IvySource)
    return built, gauge


async def play(packets: list[bytes], **options: Any) -> tuple[list[Event], SourceGauge]:
    """What becomes of packets that come a second apart, up to the end of the cable."""
    clock, events = Clock(), list[Event]()
    with monitor() as (ours, port):
        built, gauge = source(port, clock, **options)
        with pytest.raises(UnavailableError, match="lost"):
            await _feed(built, ours, clock, iter(packets), events)
    return events, gauge


async def _feed(built: IvySource, ours: int, clock: Clock, packets: Iterator[bytes], events: list[Event]) -> None:
    """Take the events of a source; the next packet goes out when it has taken the one before."""
    port_read = ivy450c.SerialPort.read

    async def read(port: Any, limit_s: float | None, sender: str) -> bytes:
        one = next(packets, None)
        if one is None:
            os.close(ours)
        else:
            os.write(ours, one)
            clock.ns += S
        data = await port_read(port, limit_s, sender)
        while one is not None and len(data) < len(one):
            data += await port_read(port, limit_s, sender)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivy450c.SerialPort, "read", read)
        async with aclosing(built.events()) as taken:
            async for event in taken:
                events.append(event)


def of(events: list[Event], stream: str) -> list[Block]:
    return [e for e in events if isinstance(e, Block) and e.stream == stream]


async def test_every_sample_and_number_of_a_monitor_arrives_in_its_stream() -> None:
    events, gauge = await play([packet(ecg=at) for at in range(3)])
    ecg = of(events, "bed1-ecg")
    sent = np.concatenate([np.frombuffer(packet(ecg=at)[9:209], np.uint8) for at in range(3)])
    assert np.array_equal(np.concatenate([b.values for b in ecg])[:, 0], sent.astype(np.int16) - 128)
    assert {(b.rate_hz, len(b.values), b.unit, b.metric) for b in ecg} == {(200.0, 8, "1", "MDC_ECG_ELEC_POTL_II")}
    assert [b.start_ns for b in ecg] == [T0 + at * 40_000_000 for at in range(75)]
    assert [b.quality for b in ecg] == [Quality.GAP_BEFORE] + [Quality.GOOD] * 74
    pressure = of(events, "bed1-p1")
    assert {(b.rate_hz, len(b.values), b.unit, b.metric) for b in pressure} == {(50.0, 2, "mm[Hg]", "MDC_PRESS_BLD")}
    assert {int(v) for b in pressure for v in b.values[:, 0]} == {90}
    assert len(of(events, "bed1-pleth")) == len(of(events, "bed1-resp")) == 75
    assert of(events, "bed1-p2") == []
    records = [e for e in events if isinstance(e, Record)]
    assert [e.time_ns for e in records] == [T0 + at * S for at in (1, 2, 3)]
    known = {name: value for name, value in records[0].values.items() if not math.isnan(value)}
    assert known == {
        "heart_rate": 72.0,
        "resp_rate": 14.0,
        "spo2": 97.0,
        "pulse_rate": 71.0,
        "nibp_systolic": 118.0,
        "nibp_diastolic": 76.0,
        "nibp_mean": 90.0,
        "nibp_pulse_rate": 73.0,
        "p1_systolic": 115.0,
        "p1_diastolic": 70.0,
        "p1_mean": 85.0,
    }
    assert {name for name, value in records[0].values.items() if math.isnan(value)} == {
        *("etco2", "p2_systolic", "p2_diastolic", "p2_mean", "t1", "t2")
    }
    assert not [e for e in events if isinstance(e, Unmapped)]
    assert (gauge.connected, gauge.detail) == (False, "")


async def test_a_damaged_packet_is_counted_and_the_next_one_comes_after_a_gap() -> None:
    events, gauge = await play([packet()[300:], packet(), packet()[:200] + packet()[203:], packet()])
    assert [(e.reason, e.what, e.count) for e in events if isinstance(e, Unmapped)] == [("bad-message", "packet", 1)]
    ecg = of(events, "bed1-ecg")
    assert [at for at, b in enumerate(ecg) if b.quality & Quality.GAP_BEFORE] == [0, 25]
    assert ecg[25].start_ns - ecg[24].start_ns == S + 40_000_000
    assert gauge.detail == f"{len(packet()) - 300 + len(packet()) - 3} bytes skipped"


async def test_a_number_without_a_unit_is_left_out_until_the_configuration_says_it() -> None:
    lines = ("HR=1;72;;", "ETCO2=1;38;;", "T1=1;98.6;;")
    events, _gauge = await play([packet(lines=lines)])
    assert [(e.reason, e.what) for e in events if isinstance(e, Unmapped)] == [
        ("unknown-unit", "151708^MDC"),
        ("unknown-unit", "150344^MDC"),
    ]
    fields = {
        "etco2": {"code": "151708", "sent_unit": "mm[Hg]"},
        "temp_oesophagus": {"code": "150344", "channel": "T1", "sent_unit": "[degF]"},
    }
    events, _gauge = await play([packet(lines=lines)], fields=fields)
    assert [e.values for e in events if isinstance(e, Record)] == [
        {"heart_rate": 72.0, "etco2": 38.0, "temp_oesophagus": 37.0}
    ]


async def test_lines_that_are_not_understood_are_counted() -> None:
    events, _gauge = await play([packet(lines=("HR=1;7x;;", "ICP=1;9;;", "RR=1;14", "P1=3;;;;;"))])
    assert sorted((e.reason, e.what) for e in events if isinstance(e, Unmapped)) == [
        ("bad-message", "line"),
        ("not-a-number", "147842^MDC [/min]"),
        ("unknown-code", "ICP"),
    ]


@given(
    st.lists(st.sampled_from([*LINES, "HR=1;999;;", "HR=1;x;;", "ICP=1;2;;", "P1=3;1;;", "T1=1;36.6;;"]), max_size=12)
)
def test_every_number_becomes_a_value_or_is_counted(lines: list[str]) -> None:
    built, _gauge = source("/dev/null", Clock())
    events = built._read(Packet(packet()[9:409], tuple(lines)), T0, T0)
    sent = 0
    for line in lines:
        try:
            sent += len(read_line(line)) or 1
        except MalformedError:
            sent += 1
    told = [e for e in events if not isinstance(e, Block)]
    assert sum(len(e.values) if isinstance(e, Record) else e.count for e in told) == sent


async def test_a_wave_that_is_cut_off_is_marked_and_its_absence_is_a_gap() -> None:
    p1 = [90] * 9 + [251] * 31 + [90] * 10
    events, _gauge = await play([packet(p1=p1)], waves=["p1", "p2"])
    assert {e.stream for e in events if isinstance(e, Block)} == {"bed1-p1"}
    blocks = of(events, "bed1-p1")
    assert [b.start_ns - T0 for b in blocks] == [at * 40_000_000 for at in (0, 1, 2, 3, 4, 20, 21, 22, 23, 24)]
    assert [at for at, b in enumerate(blocks) if b.quality & Quality.SENSOR_OFF] == [4]
    assert [at for at, b in enumerate(blocks) if b.quality & Quality.GAP_BEFORE] == [0, 5]


async def test_a_wave_at_its_rail_is_saturated_and_a_pressure_of_zero_is_not() -> None:
    events, _gauge = await play([packet(pleth=250, p1=[0] * 50)])
    assert all(b.quality & Quality.SATURATED for b in of(events, "bed1-pleth"))
    assert not any(b.quality & Quality.SATURATED for b in of(events, "bed1-p1"))


async def test_a_monitor_that_says_nothing_is_silent_and_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(ivy450c, "_SILENT_S", 0.01)
    with monitor() as (_ours, port):
        built, gauge = source(port, Clock())
        with pytest.raises(UnavailableError, match=r"the monitor on .* says nothing"):
            await anext(built.events())
    assert gauge.connected is False


def test_a_wave_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        source("/dev/null", Clock(), waves=["ecg", "ecg"])
