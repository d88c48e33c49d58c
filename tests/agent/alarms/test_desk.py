"""Alarms beside a real buffer: durable before anybody hears of them, once each, through kills and full disks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest

from bedside.agent.alarms.desk import MAX_WAITING, RETRY_S, AlarmDesk
from bedside.agent.api.follow import AlarmFollowers
from bedside.agent.buffer.alarms import AlarmTable
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import AlarmRule
from bedside.agent.inference.answer import Answer
from bedside.agent.inference.model import Decision, Model
from bedside.core.bundle.manifest import Targets
from bedside.core.errors import ProtocolError, StoreError
from bedside.core.samples import Record
from bedside.ondevice.heads import Head
from bedside.service.platform import SystemEntropy

S = 1_000_000_000
FALL = AlarmRule(name="fall", label="fall", above=0.9, clear=0.6, priority="low", escalate_s=60.0)
SPO2 = AlarmRule(name="spo2", field="spo2", below=88.0, clear=92.0, stream="bed")
MODEL = Model(b"m" * 32, Head("classification", ("walk", "fall")), (1, 1), object())


class Clock:
    def __init__(self) -> None:
        self.s = 1_000.0

    def now_ns(self) -> int:
        return int(self.s * S)

    def monotonic_s(self) -> float:
        return self.s


@dataclass(frozen=True)
class Window:
    session: str
    end_ns: int
    stream: str = "wrist"
    start_ns: int = 0
    values: object = None
    closed_monotonic_s: float = 0.0


class Bed:
    """A buffer, its alarms, and who hears of them."""

    def __init__(self, path, *rules: AlarmRule) -> None:
        self.path, self.rules, self.clock = path, rules or (FALL, SPO2), Clock()
        self.told: list[tuple[int, str, str]] = []
        self.on_told: Callable[[object], None] = lambda alarm: None
        self.numbers = 0
        self.begin()
        self.session = self.buffer.sessions.open("wrist", 0, "cli")
        self.beds_session = self.buffer.sessions.open("bed", 0, "cli")

    def begin(self) -> None:
        self.buffer = BufferStore(self.path, b"k" * 32, self.clock, SystemEntropy(), cap_bytes=16 << 20)
        followers = AlarmFollowers()
        followers.publish = self.hear
        self.desk = AlarmDesk(self.rules, self.buffer, self.clock, followers)

    def kill(self) -> None:
        """The process ends without a word, and another begins."""
        self.buffer.database.close()
        self.begin()

    def hear(self, alarm) -> None:
        life = "cleared" if alarm.cleared_ns else "seen" if alarm.acknowledged_ns else "raised"
        self.told.append((alarm.id, alarm.rule, "escalated" if alarm.escalated_ns and life == "raised" else life))
        self.on_told(alarm)

    def decide(self, at_s: float, falls: float, stretch: int = 0, model: str = "har") -> int:
        window = Window(self.session, round(at_s * S))
        row = Prediction("wrist", self.session, 0, window.end_ns, "fall", falls, MODEL.digest, 0.0)
        number = self.buffer.add_prediction(row)
        self.desk.decided(
            model,
            Decision(MODEL, window, Answer(MODEL.head, np.array([1 - falls, falls], np.float32))),
            stretch,
            number,
        )
        return number

    def record(self, at_s: float, **values: float) -> None:
        self.desk.recorded(Record("bed", round(at_s * S), values), self.beds_session)

    def tick(self, after_s: float = 0.0) -> None:
        self.clock.s += after_s
        self.desk.tick()

    def table(self):
        return AlarmTable(self.buffer).newest(10_000, open_only=False)

    def refuse(self, monkeypatch) -> None:
        def full(name: str, work: object) -> None:
            raise StoreError("store-write", f"{name} was not written: disk is full")

        monkeypatch.setattr(self.buffer.database, "run_tx", full)


@pytest.fixture
def bed(tmp_path):
    made = Bed(tmp_path / "buffer.db")
    yield made
    made.buffer.close()


def test_an_alarm_is_on_the_disk_before_anybody_hears_of_it_and_so_is_its_prediction(bed) -> None:
    found = []

    def look(alarm) -> None:
        with sqlite3.connect(bed.path) as other:
            alarms = other.execute("SELECT id, prediction FROM alarms").fetchall()
            numbers = {row[0] for row in other.execute("SELECT id FROM predictions")}
        found.append((alarms == [(alarm.id, alarm.prediction_id)], alarm.prediction_id in numbers))

    bed.on_told = look
    number = bed.decide(1, 0.95)
    assert found == [(True, True)]
    assert bed.told == [(1, "fall", "raised")]
    (alarm,) = bed.table()
    assert (alarm.prediction, alarm.raised_ns, alarm.session, alarm.priority) == (number, S, bed.session, "low")
    assert alarm.value == pytest.approx(0.95)


GASES = Model(b"g" * 32, Head("regression", ("po2",), Targets(("kPa",), (0.0,), (1.0,))), (1, 1), object())


def test_a_value_past_its_limit_raises_an_alarm_in_its_unit(tmp_path) -> None:
    hypoxia = AlarmRule(name="hypoxia", output="po2", below=8.0, clear=9.0)
    bed = Bed(tmp_path / "buffer.db", hypoxia, AlarmRule(name="no-class", label="po2", above=0.5))
    for at_s, kpa in ((1, 11.0), (2, 7.5), (3, 8.5), (4, 9.5)):
        window = Window(bed.session, at_s * S)
        row = Prediction("wrist", bed.session, 0, window.end_ns, "po2", 1.0, GASES.digest, 0.0)
        number = bed.buffer.add_prediction(row)
        decision = Decision(GASES, window, Answer(GASES.head, np.array([kpa], np.float32)))
        bed.desk.decided("gases", decision, 0, number)
    assert bed.told == [(1, "hypoxia", "raised"), (1, "hypoxia", "cleared")]
    assert [(alarm.value, alarm.prediction) for alarm in bed.table()] == [(7.5, 2)]


def test_the_probability_of_the_watched_class_counts_also_when_another_is_more_probable(tmp_path) -> None:
    bed = Bed(tmp_path / "buffer.db", AlarmRule(name="maybe", label="fall", above=0.3))
    bed.decide(1, 0.4)
    assert bed.told == [(1, "maybe", "raised")]
    bed.buffer.close()


def test_a_rule_hears_its_stream_its_model_and_its_label_alone(tmp_path) -> None:
    limit = {"label": "fall", "above": 0.5}
    names = ("stream", "model", "label")
    others = [AlarmRule(name=name, **limit | {name: "other"}) for name in names]
    bed = Bed(tmp_path / "buffer.db", *others, AlarmRule(name="mine", stream="wrist", model="har", **limit))
    bed.decide(1, 0.9)
    assert bed.told == [(1, "mine", "raised")]
    bed.buffer.close()


def test_hold_off_runs_on_between_models_and_begins_anew_where_one_of_them_was_interrupted(tmp_path) -> None:
    bed = Bed(tmp_path / "buffer.db", AlarmRule(name="held", label="fall", above=0.5, hold_off_s=2.0))
    for at_s, stretch, model in ((1, 0, "har"), (1, 4, "other"), (2, 0, "har"), (2, 5, "other"), (3, 0, "har")):
        bed.decide(at_s, 0.9, stretch, model)
    assert bed.told == []
    bed.decide(4, 0.9, 5, "other")
    assert [alarm.raised_ns for alarm in bed.table()] == [4 * S]
    bed.buffer.close()


def test_a_field_of_a_record_raises_and_clears(bed) -> None:
    for at_s, value in ((1, 97.0), (2, 85.0), (3, 90.0), (4, float("nan")), (5, 93.0)):
        bed.record(at_s, spo2=value, pulse=70.0)
    assert bed.told == [(1, "spo2", "raised"), (1, "spo2", "cleared")]
    (alarm,) = bed.table()
    assert (alarm.raised_ns, alarm.cleared_ns, alarm.prediction, alarm.value) == (2 * S, 5 * S, 0, 85.0)


def test_no_value_neither_raises_nor_clears_an_alarm(bed) -> None:
    nothing = float("nan")
    for at_s in range(1, 5):
        bed.record(at_s, spo2=nothing, pulse=70.0)
    assert bed.told == []
    bed.record(5, spo2=85.0)
    for at_s in range(6, 10):
        bed.record(at_s, spo2=nothing)
    assert bed.told == [(1, "spo2", "raised")]
    bed.record(10, spo2=96.0)
    assert bed.told[1:] == [(1, "spo2", "cleared")]


def test_an_alarm_that_nobody_acknowledges_is_raised_again_louder_and_once(bed) -> None:
    bed.decide(1, 0.95)
    bed.tick(59)
    assert len(bed.told) == 1
    bed.tick(2)
    bed.tick(500)
    assert bed.told[1:] == [(1, "fall", "escalated")]
    assert [(alarm.priority, alarm.escalated_ns > 0) for alarm in bed.table()] == [("medium", True)]


def test_acknowledging_is_durable_stops_escalation_and_changes_nothing_twice(bed) -> None:
    bed.decide(1, 0.95)
    first = bed.desk.acknowledge(1, "nurse")
    assert bed.desk.acknowledge(1, "doctor") == first
    bed.tick(1_000)
    assert bed.told == [(1, "fall", "raised"), (1, "fall", "seen")]
    assert bed.table() == [first]
    assert (first.acknowledged_by, bed.desk.count_open()) == ("nurse", (1, 1))
    bed.decide(2, 0.1)
    assert bed.desk.count_open() == (0, 0)
    assert bed.desk.newest(10, open_only=True) == []
    with pytest.raises(ProtocolError, match="no alarm 9"):
        bed.desk.acknowledge(9, "nurse")
    with pytest.raises(ProtocolError, match="no alarm 0"):
        bed.desk.acknowledge(0, "nurse")


def test_an_alarm_that_is_over_waits_to_be_seen(bed) -> None:
    bed.decide(1, 0.95)
    bed.decide(2, 0.1)
    assert [alarm.number for alarm in bed.desk.newest(10, open_only=True)] == [1]
    assert bed.desk.count_open() == (1, 0)
    assert bed.desk.acknowledge(1, "nurse").cleared_ns == 2 * S
    assert bed.desk.newest(10, open_only=True) == []


def test_while_the_disk_refuses_nobody_hears_and_afterwards_everything_is_told(bed, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        bed.refuse(patch)
        bed.decide(1, 0.95)
        bed.decide(2, 0.1)
        bed.record(3, spo2=70.0)
        bed.tick(RETRY_S)
        assert bed.told == []
        assert bed.desk.waiting == 2
        assert bed.desk.count_open() == (2, 1)
        assert "disk is full" in bed.desk.store_error.sentence
    bed.tick(RETRY_S / 2)
    assert bed.told == []  # tried once a second
    bed.tick(RETRY_S)
    assert bed.told == [(1, "fall", "cleared"), (2, "spo2", "raised")]
    assert bed.desk.store_error is None
    assert [alarm.prediction for alarm in bed.table()] == [1, 0]


def test_acknowledging_that_the_disk_refuses_has_not_happened(bed, monkeypatch) -> None:
    bed.decide(1, 0.95)
    with monkeypatch.context() as patch:
        bed.refuse(patch)
        with pytest.raises(StoreError):
            bed.desk.acknowledge(1, "nurse")
    assert bed.desk.count_open() == (1, 1)
    assert bed.desk.acknowledge(1, "nurse").acknowledged_by == "nurse"


def test_what_waits_for_the_disk_is_bounded_and_what_is_dropped_is_counted(bed, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        bed.refuse(patch)
        for at in range(MAX_WAITING + 5):
            bed.record(20 * at + 1, spo2=80.0)
            bed.record(20 * at + 2, spo2=99.0)
        bed.record(99_999, spo2=80.0)
        assert bed.desk.waiting == MAX_WAITING
    bed.tick(RETRY_S)
    assert bed.desk.dropped == 6
    assert len(bed.table()) == MAX_WAITING
    assert bed.table()[-1].raised_ns == 99_999 * S  # the one that is not over


def test_after_a_kill_a_raised_alarm_is_not_raised_again_and_still_clears(bed) -> None:
    bed.decide(1, 0.95)
    bed.kill()
    for at in (1, 2, 3):
        bed.decide(at, 0.97)
    assert bed.told == [(1, "fall", "raised")]
    bed.decide(4, 0.2)
    assert bed.told[1:] == [(1, "fall", "cleared")]
    bed.kill()
    for at, falls in ((1, 0.95), (2, 0.97), (4, 0.2)):  # the source says it all once more
        bed.decide(at, falls)
    assert len(bed.table()) == 1
    bed.decide(14, 0.99)
    assert bed.told[2:] == [(2, "fall", "raised")]


def test_escalation_counts_anew_after_a_start(bed) -> None:
    bed.decide(1, 0.95)
    bed.clock.s += 50
    bed.kill()
    bed.tick(59)
    assert len(bed.told) == 1
    bed.tick(2)
    assert bed.told[1:] == [(1, "fall", "escalated")]


def test_a_session_that_is_closed_anywhere_clears_its_alarms(bed) -> None:
    bed.decide(1, 0.95)
    bed.record(1, spo2=80.0)
    bed.buffer.sessions.close("wrist", 3 * S)
    bed.tick()
    assert bed.told[2:] == [(1, "fall", "cleared")]
    bed.decide(2, 0.99)  # a window of that session, decided late
    assert len(bed.table()) == 2


def test_an_erased_session_leaves_no_alarm_and_none_that_waits_comes_back(bed, monkeypatch) -> None:
    bed.decide(1, 0.95)
    with monkeypatch.context() as patch:
        bed.refuse(patch)
        bed.record(1, spo2=80.0)
    bed.buffer.forget(bed.session)
    bed.buffer.forget(bed.beds_session)
    bed.tick(RETRY_S)
    assert (bed.table(), bed.desk.waiting, bed.desk.count_open()) == ([], 0, (0, 0))
    assert bed.told == [(1, "fall", "raised")]


def test_an_alarm_whose_rule_is_gone_is_cleared_at_the_start(bed) -> None:
    bed.decide(1, 0.95)
    bed.rules = (SPO2,)
    bed.kill()
    bed.tick()
    assert bed.told[1:] == [(1, "fall", "cleared")]
    bed.kill()
    assert len(bed.told) == 2


def test_a_value_that_swings_round_its_limit_makes_one_alarm_until_somebody_has_seen_it(bed) -> None:
    for at in range(40):
        bed.record(at, spo2=(80.0, 95.0)[at % 2])
    (alarm,) = bed.table()
    assert (alarm.raised_ns, alarm.cleared_ns) == (0, 39 * S)
    assert bed.told == [(1, "spo2", ("raised", "cleared")[at % 2]) for at in range(40)]
    bed.desk.acknowledge(1, "nurse")
    bed.record(40, spo2=80.0)
    assert [(one.number, one.raised_ns) for one in bed.table()] == [(1, 0), (2, 40 * S)]


def test_what_comes_back_late_or_in_another_session_is_another_alarm(bed) -> None:
    bed.record(1, spo2=80.0)
    bed.record(2, spo2=95.0)
    bed.record(12, spo2=80.0)
    bed.record(13, spo2=95.0)
    bed.beds_session = bed.buffer.sessions.open("bed", 14 * S, "cli")
    bed.record(14, spo2=80.0)
    assert [one.number for one in bed.table()] == [1, 2, 3]


def test_a_relapse_after_a_kill_goes_on_with_the_alarm_and_escalates(bed) -> None:
    bed.record(1, spo2=80.0)
    bed.record(2, spo2=95.0)
    bed.kill()
    bed.record(3, spo2=80.0)
    (alarm,) = bed.table()
    assert (alarm.number, alarm.cleared_ns) == (1, 0)


def test_other_rules_clear_what_is_not_watched_any_more_and_leave_the_rest_as_a_restart_does(bed) -> None:
    bed.decide(1, 0.95)
    bed.record(1, spo2=80.0)
    assert bed.told == [(1, "fall", "raised"), (2, "spo2", "raised")]
    stricter = msgspec.structs.replace(SPO2, clear=99.0, priority="high")
    bed.desk.change([stricter])
    assert bed.told[2:] == [(1, "fall", "cleared")]
    bed.decide(2, 0.95)
    bed.record(2, spo2=95.0)
    assert bed.told[3:] == [], "the new limit has not been passed back"
    bed.record(3, spo2=99.5)
    assert bed.told[3:] == [(2, "spo2", "cleared")]


def test_other_rules_leave_a_hold_off_that_is_under_way(tmp_path) -> None:
    held = msgspec.structs.replace(SPO2, hold_off_s=10.0)
    bed = Bed(tmp_path / "buffer.db", held, FALL)
    bed.record(1, spo2=80.0)
    bed.desk.change([held])
    bed.record(11, spo2=80.0)
    assert bed.told == [(1, "spo2", "raised")]
    bed.buffer.close()
