"""A hospital that tells too late who lies in a bed: what follows is the next person's, and the doubt is told."""

from __future__ import annotations

import logging
from contextlib import closing

import pytest

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Session
from bedside.agent.buffer.sessions import ADT
from bedside.agent.buffer.store import BufferStore
from bedside.core.ids import StreamId
from bedside.core.samples import Mark, MarkKind, Record
from bedside.service.platform import SystemEntropy
from hand_clock import T0, HandClock

KEY = bytes(range(32))
BED = StreamId("bed-4")


def at(second: float) -> int:
    return T0 + round(second * 1e9)


class Device:
    def __init__(self, path, **options) -> None:
        self.path, self.clock, self.options = path, HandClock(), options
        self.open()

    def open(self) -> None:
        self.store = BufferStore(self.path, KEY, self.clock, SystemEntropy(), gap_s=300.0, **self.options)

    def say(self, second: float) -> str:
        self.clock.at_s = max(self.clock.at_s, second)
        return self.store.add_record(Record(BED, at(second), {"pulse": 60.0}, {"pulse": "/min"}))

    def come(self, second: float, origin: str = ADT) -> str:
        self.store.mark(Mark(BED, at(second), at(second), "", origin, MarkKind.SESSION_OPEN))
        return self.store.sessions.current(BED)

    def session(self, name: str) -> Session:
        self.store.flush()
        with closing(BufferReader(self.path, KEY)) as reader:
            return reader.session(name)

    def doubts(self) -> int:
        self.store.flush()
        with closing(BufferReader(self.path, KEY)) as reader:
            return reader.counters().get("after-late-adt", 0)


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path / "buffer.db")
    yield made
    made.store.close()


def test_what_follows_is_the_next_persons_and_the_one_before_is_not_trained_on(device, caplog) -> None:
    first = device.come(0)
    assert {device.say(second) for second in (100, 200, 300, 400)} == {first}
    with caplog.at_level(logging.WARNING):
        second = device.come(250)
    assert {device.say(when) for when in (500, 260, 350, 450)} == {second}, "also what is older than what was stored"
    assert device.say(150) == first, "a backlog of who lay there is still theirs"
    assert (device.session(first).consent_training, device.session(second).consent_training) == (False, True)
    assert device.doubts() == 1
    (told,) = [one for one in caplog.records if one.message == "after-late-adt"]
    assert told.bedside_fields == {"stream": BED, "seconds": 150}


def test_the_doubt_is_no_refusal_that_outlives_its_session(device) -> None:
    first = device.come(0)
    device.say(200)
    device.come(100)
    device.store.close()
    device.open()
    assert device.session(first).consent_training is False
    device.store.sessions.close(BED, at(500))
    assert device.session(device.say(5_000)).consent_training is True


def test_the_next_person_is_there_though_nothing_is_heard_for_longer_than_a_gap(device) -> None:
    device.come(0)
    device.say(1_000)
    second = device.come(500)
    assert device.say(1_100) == second


def test_every_session_of_that_time_is_in_doubt_and_none_before(device) -> None:
    before = device.come(0)
    device.say(50)
    between = [device.come(100), device.say(150), device.say(600)]
    device.come(140)
    assert device.doubts() == 2
    assert [device.session(one).consent_training for one in (before, between[0], between[2])] == [True, False, False]


@pytest.mark.parametrize(("second", "origin"), [(200, ADT), (201, ADT), (100, "replay")])
def test_who_is_told_of_in_time_leaves_no_doubt(device, second, origin) -> None:
    first = device.come(0)
    device.say(200)
    device.come(second, origin)
    assert (device.doubts(), device.session(first).consent_training) == (0, True)
