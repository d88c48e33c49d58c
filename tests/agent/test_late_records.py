"""Late and repeated records on their whole way: kept, and neither decided on nor alarmed on."""

from __future__ import annotations

from contextlib import closing

import pytest

from bedside.agent.alarms.desk import AlarmDesk
from bedside.agent.api.follow import AlarmFollowers, Followers
from bedside.agent.buffer.late import LATE_FOR_S
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import AlarmRule
from bedside.agent.freshness import DEAF_S
from bedside.agent.pipeline import Pipeline
from bedside.core.ids import StreamId
from bedside.core.samples import Mark, MarkKind, Record
from bedside.service.platform import SystemEntropy
from hand_clock import T0, HandClock

KEY = bytes(range(32))
BED = StreamId("bed")
RULE = AlarmRule(name="low", field="spo2", below=88.0, clear=92.0)


class Device:
    def __init__(self, path) -> None:
        self.path, self.clock = path, HandClock()
        self.buffer = BufferStore(path, KEY, self.clock, SystemEntropy(), gap_s=300.0)
        alarms = AlarmDesk([RULE], self.buffer, self.clock, AlarmFollowers())
        self.pipeline = Pipeline(self.buffer, self.clock, Followers(), 0, alarms=alarms)

    def say(self, at_s: float, *, now_s: float | None = None, **values: float) -> None:
        self.clock.at_s = max(self.clock.at_s, at_s if now_s is None else now_s)
        self.pipeline.consume(Record(BED, T0 + round(at_s * 1e9), values, {}))
        self.pipeline.flush_due()

    def mark(self, at_s: float, kind: MarkKind) -> None:
        self.clock.at_s = max(self.clock.at_s, at_s)
        self.pipeline.consume(Mark(BED, T0 + round(at_s * 1e9), T0 + round(at_s * 1e9), "", "adt", kind))

    def alarms(self) -> list[tuple[float, bool]]:
        """When each was raised, and whether it lasts."""
        self.buffer.flush()
        with closing(BufferReader(self.path, KEY)) as reader:
            return [((one.raised_ns - T0) / 1e9, not one.cleared_ns) for one in reader.alarms(100)]

    def records(self) -> int:
        with closing(BufferReader(self.path, KEY)) as reader:
            return reader.rows()["records"]


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path / "b.db")
    yield made
    made.buffer.close()


def test_a_value_of_before_raises_no_alarm_and_clears_none(device) -> None:
    device.say(100, spo2=97)
    device.say(90, spo2=60)
    assert device.alarms() == []
    device.say(101, spo2=80)
    device.say(95, spo2=99)
    device.say(101, spo2=80)  # once more
    assert device.alarms() == [(101, True)]
    device.say(102, spo2=96)
    assert device.alarms() == [(101, False)]
    assert device.records() == 5


def test_what_a_slower_sender_says_of_another_field_is_heard(device) -> None:
    device.say(100, pulse=60)
    device.say(99, spo2=70, now_s=101)
    assert device.alarms() == [(99, True)]


def test_a_late_record_of_the_person_before_touches_no_alarm_of_who_is_there_now(device) -> None:
    device.mark(0, MarkKind.SESSION_OPEN)
    device.say(10, spo2=97)
    device.mark(20, MarkKind.SESSION_CLOSE)
    device.mark(30, MarkKind.SESSION_OPEN)
    device.say(31, spo2=80)
    device.say(15, spo2=99, now_s=32)
    device.say(16, spo2=50, now_s=32)
    device.say(25, spo2=50, now_s=32)
    assert device.alarms() == [(31, True)]
    device.say(33, spo2=97)
    assert device.alarms() == [(31, False)]


def test_when_a_senders_clock_is_set_back_its_alarms_come_again_after_a_minute(device) -> None:
    device.say(3_600, spo2=97)
    for second in range(0, 90, 10):  # an hour is said twice
        device.say(second, spo2=70, now_s=3_600 + second)
    ((raised_s, lasts),) = device.alarms()
    assert lasts
    assert raised_s == LATE_FOR_S + 10
    assert device.records() == 10


def test_within_an_open_session_too(device) -> None:
    device.say(0, spo2=97)
    for second in range(100, 3_601, 100):
        device.say(second, spo2=97)
    for second in range(1_000, 1_090, 10):
        device.say(second + 1, spo2=70, now_s=2_600 + second)
    assert device.alarms() == [(1_001 + DEAF_S + 10, True)]
