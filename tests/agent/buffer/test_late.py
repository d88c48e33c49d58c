"""Late and repeated records: each to the person that it is of, once."""

from __future__ import annotations

import itertools
import math
import random
import sqlite3
from contextlib import closing

import pytest

from bedside.agent.buffer.inspection import verify
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.sessions import LATE
from bedside.agent.buffer.store import BufferStore
from bedside.agent.keeping import Keeper
from bedside.agent.windows.retention import Retention, RetentionRules
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Mark, MarkKind, Record
from bedside.service.platform import SystemEntropy
from hand_clock import T0, HandClock

KEY = bytes(range(32))
BED = StreamId("bed-4")
GAP_S = 60.0


def at(second: float) -> int:
    return T0 + round(second * 1e9)


class Device:
    def __init__(self, path) -> None:
        self.path, self.clock = path, HandClock()
        self.open()

    def open(self) -> None:
        self.store = BufferStore(self.path, KEY, self.clock, SystemEntropy(), gap_s=GAP_S)

    def say(self, second: float, pulse: float = 60.0, *, now: float | None = None) -> str:
        self.clock.at_s = max(self.clock.at_s, second if now is None else now)
        return self.store.add_record(Record(BED, at(second), {"pulse": pulse}, {"pulse": "/min"}))

    def mark(self, second: float, kind: MarkKind) -> None:
        self.clock.at_s = max(self.clock.at_s, second)
        self.store.mark(Mark(BED, at(second), at(second), "", "adt", kind))

    def stored(self) -> dict[str, list[float]]:
        """Seconds of the records of each session."""
        self.store.flush()
        with closing(BufferReader(self.path, KEY)) as reader:
            found = {
                one.session: [(record.time_ns - T0) / 1e9 for record in reader.records(BED, one.session)]
                for one in reader.sessions(BED)
            }
            assert reader.unreadable == 0
        return found

    def counters(self) -> dict[str, int]:
        self.store.flush()
        with closing(BufferReader(self.path, KEY)) as reader:
            return reader.counters()

    def sessions(self) -> list[tuple[float, float | None, str]]:
        with closing(BufferReader(self.path, KEY)) as reader:
            return [
                ((one.opened_ns - T0) / 1e9, None if one.closed_ns is None else (one.closed_ns - T0) / 1e9, one.origin)
                for one in reader.sessions(BED)
            ]


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path / "b.db")
    yield made
    made.store.close()
    problems = verify(made.path, Sealer(KEY), lambda _: None).problems
    assert problems == []


@pytest.mark.parametrize("restart", [False, True])
def test_the_same_record_again_is_no_second_row(device, restart) -> None:
    first = device.say(1)
    device.say(1, 61.0)
    assert device.stored() == {first: [1, 1]}
    if restart:
        device.store.close()
        device.open()
    assert device.say(1) == device.say(1, 61.0) == first
    assert device.stored() == {first: [1, 1]}
    assert device.counters()["duplicate-records"] == 2


def test_the_same_record_twice_in_one_commit_is_one_row_and_another_value_another(device) -> None:
    session = device.say(1)
    for pulse in (60.0, 61.0, math.nan, math.nan, 61.0):
        device.say(1, pulse)
    device.store.add_record(Record(BED, at(1), {"pulse": 60.0}, {}))  # without its unit it says something else
    assert device.stored() == {session: [1] * 4}
    assert device.counters()["duplicate-records"] == 3


def test_one_record_is_one_row_also_where_its_time_falls_into_two_sessions(device) -> None:
    before = device.say(10)
    device.mark(10, MarkKind.SESSION_OPEN)
    assert device.say(10) != before
    assert sorted(device.stored().values()) == [[], [10]]


def test_a_record_within_the_open_session_is_of_it_however_old_it_is(device) -> None:
    session = device.say(0)
    for second in range(30, 601, 30):
        assert device.say(second) == session
    assert device.say(5) == session  # ten times the gap behind the newest
    assert device.say(610) == session
    assert device.stored() == {session: [0, 5, *range(30, 601, 30), 610]}


def test_a_late_record_is_of_the_person_of_its_time_and_not_of_who_lies_there_now(device) -> None:
    device.mark(0, MarkKind.SESSION_OPEN)
    first = device.say(5)
    device.mark(20, MarkKind.SESSION_CLOSE)
    assert device.say(18, now=22) == first  # nobody is there now
    device.mark(30, MarkKind.SESSION_OPEN)
    second = device.say(31)
    assert device.say(19, now=35) == device.say(7, now=35) == first
    between = device.say(25, now=36)
    assert between not in (first, second)
    assert device.say(32) == second
    assert device.stored() == {first: [5, 7, 18, 19], second: [31, 32], between: [25]}
    assert device.sessions() == [(0, 20, "adt"), (30, None, "adt"), (25, 25, LATE)]


def test_late_records_of_nobodys_time_share_a_session_that_crosses_no_other(device) -> None:
    device.mark(0, MarkKind.SESSION_OPEN)
    device.mark(100, MarkKind.SESSION_CLOSE)
    device.mark(200, MarkKind.SESSION_OPEN)
    live = device.say(201)
    late = [device.say(second, now=210) for second in (150, 140, 155, 190)]
    assert len({live, *late}) == 2
    device.store.close()
    device.open()
    assert device.say(160) == late[0]
    assert device.say(-30) != late[0]  # the first session lies between
    assert device.say(202) == live
    assert device.sessions()[2:] == [(140, 190, LATE), (-30, -30, LATE)]


def test_a_session_that_began_by_itself_began_earlier_where_nobody_else_did(device) -> None:
    session = device.say(100)
    for second in range(110, 301, 10):
        device.say(second)
    assert device.say(95) == session  # far behind the newest, and just before the first
    assert device.sessions() == [(95, None, "gap")]
    assert device.say(20) != session  # more than a gap before it
    assert device.say(310) == session


def test_a_session_that_a_clock_ahead_has_opened_does_not_make_the_present_late(device) -> None:
    device.say(1e6, now=10)
    now = device.say(20)
    assert device.say(21) == now
    assert [origin for _, _, origin in device.sessions()] == ["gap", "gap"]
    device.mark(30, MarkKind.SESSION_CLOSE)
    assert device.say(31) not in (now, None)
    assert device.sessions()[-1] == (31, None, "after-close")


def test_a_record_that_retention_has_passed_is_counted_and_not_kept_for_ever(device) -> None:
    device.mark(0, MarkKind.SESSION_OPEN)
    session = device.say(1)
    device.mark(10, MarkKind.SESSION_CLOSE)
    device.store.flush()
    retention = Retention(device.path, KEY, RetentionRules(0, 10**18, 10**18), SystemEntropy())
    while retention.run(device.store, at(10_000), []):
        pass
    assert device.say(5, now=10_000) == session
    assert device.stored() == {session: []}
    assert device.counters()["expired-records"] == 2
    late = device.say(20)
    assert device.stored()[late] == [20]
    device.store.forget(late)
    assert device.stored() == {session: []}


def test_late_sessions_find_an_end_where_a_sender_invents_times(tmp_path) -> None:
    device = Device(tmp_path / "b.db")
    device.say(10_000_000)
    device.store.quota.small_bytes = 2_000
    with pytest.raises(StoreError, match="sessions-full"):
        [device.say(number * 1_000.0, now=10_000_000) for number in range(1_000)]
    device.store.close()


def test_eviction_and_erasure_find_late_rows_behind_what_has_expired(device) -> None:
    device.mark(1_000, MarkKind.SESSION_OPEN)
    device.say(1_001)
    device.mark(2_000, MarkKind.SESSION_CLOSE)
    late = device.say(500, now=2_001)
    device.store.flush()
    rules = RetentionRules(round(1_000e9), 10**18, 10**18)
    retention = Retention(device.path, KEY, rules, SystemEntropy())
    while retention.run(device.store, at(2_070), []):  # past the minute of 1,001 and of 500
        pass
    fresh = device.say(505, now=2_071)
    device.store.flush()
    for session in {late, fresh}:
        device.store.forget(session)
    with closing(sqlite3.connect(device.path)) as reader:
        assert reader.execute("SELECT count(*) FROM records WHERE session IN (?, ?)", (late, fresh)).fetchone() == (0,)


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_records_is_stored_once_each_and_in_the_session_of_its_time(tmp_path, seed) -> None:
    """Two persons, one after the other; their records come late, twice, and across restarts."""
    rng = random.Random(seed)
    device = Device(tmp_path / "b.db")
    device.mark(0, MarkKind.SESSION_OPEN)
    first = device.say(0)
    device.mark(1_000, MarkKind.SESSION_CLOSE)
    device.mark(2_000, MarkKind.SESSION_OPEN)
    second = device.say(2_000)
    live = [*range(2_001, 3_000, 50)]
    for second_of_it in live:
        assert device.say(second_of_it) == second
    times = [*range(1, 1_000, 50), *live]
    said = [one for one in times for _ in range(rng.choice((1, 1, 2, 3)))]
    rng.shuffle(said)
    for number, second_of_it in enumerate(said):
        assert device.say(second_of_it, now=3_000) == (first if second_of_it < 1_000 else second)
        if number % 17 == 0:
            device.store.flush()
        if number % 31 == 30:
            device.store.close()
            device.open()
    assert device.stored() == {first: [0, *range(1, 1_000, 50)], second: [2_000, *range(2_001, 3_000, 50)]}
    assert device.counters()["duplicate-records"] == len(said) + len(live) - len(times)
    device.store.close()


def test_the_look_for_repeats_is_bounded_in_a_second_full_of_records(device) -> None:
    rows = [device.say(1, float(number)) for number in range(100)]
    device.say(1, 99.0)  # among the newest of that time
    session = rows[0]
    assert len(device.stored()[session]) == 100
    assert list(itertools.islice(device.stored(), 2)) == [session]


def test_who_was_put_to_bed_by_hand_gets_no_record_of_the_person_before(device) -> None:
    device.mark(0, MarkKind.SESSION_OPEN)
    first = device.say(10)
    device.mark(20, MarkKind.SESSION_CLOSE)
    device.clock.at_s = 25
    by_hand = device.store.sessions.open(BED, at(25), "cli")
    assert device.say(15, now=26) == first
    assert device.say(27) == by_hand
    assert device.sessions() == [(0, 20, "adt"), (25, None, "cli")]


def test_a_minute_of_nothing_but_late_records_is_a_clock_that_was_set_back(device) -> None:
    before = device.say(10_000)
    late = {device.say(second, now=10_000 + second) for second in range(0, 61, 10)}
    assert before not in late
    assert len(late) == 1
    now = device.say(70, now=10_070)
    assert device.say(80, now=10_080) == now
    assert now not in {before, *late}
    assert device.sessions()[-1] == (70, None, "gap")


@pytest.mark.parametrize("origin", ["adt", "cli"])
@pytest.mark.parametrize("over", [False, True])
def test_a_backlog_older_than_a_session_that_somebody_opened_is_never_the_present(device, origin, over) -> None:
    device.mark(0, MarkKind.SESSION_OPEN)
    device.say(1)
    device.clock.at_s = 10_000
    said = device.store.sessions.open(BED, at(10_000), origin)
    assert device.say(10_001) == said
    if over:  # its silence was longer than the gap, and the present began by itself
        said = device.say(11_000)
        assert device.sessions()[-1] == (11_000, None, "gap")
    now = [11_000 + second for second in range(0, 300, 10)]
    late = {device.say(8_000 + number, now=second) for number, second in enumerate(now)}
    assert len(late) == 1
    assert said not in late
    assert device.store.ahead.current(BED) == said
    assert [one for one in device.sessions() if one[2] not in {"adt", "cli", "gap"}] == [(8_000, 8_029, LATE)]
    assert device.say(11_001 if over else 10_002, now=11_301) == said


def test_a_backlog_of_a_patient_who_was_discharged_is_never_the_present(device) -> None:
    device.mark(0, MarkKind.SESSION_OPEN)
    first = device.say(1)
    device.mark(1_000, MarkKind.SESSION_CLOSE)
    for second in range(0, 200, 10):
        assert device.say(500 + second, now=1_010 + second) == first
    assert device.store.ahead.current(BED) is None


@pytest.mark.parametrize("restart", [False, True])
def test_a_late_session_is_not_the_newest_one_that_a_refusal_outlives(device, restart) -> None:
    session = device.say(1_000)
    late = device.say(1)
    assert device.store.sessions.set_consent(late, training=True)
    assert device.store.sessions.set_consent(session, training=False)
    if restart:
        device.store.close()
        device.open()
    device.mark(1_010, MarkKind.SESSION_CLOSE)
    device.say(1_020)
    with closing(BufferReader(device.path, KEY)) as reader:
        assert [one.consent_training for one in reader.sessions(BED)] == [False, True, False]


def test_while_the_disk_refuses_a_late_record_ends_no_session(device, monkeypatch) -> None:
    device.mark(1_000, MarkKind.SESSION_OPEN)
    session = device.say(1_001)
    keeper = Keeper(device.store)
    with monkeypatch.context() as patch:
        patch.setattr(device.store.database, "run_tx", _refuses)
        for second in (1, 999):
            assert keeper.record(Record(BED, at(second), {"pulse": 1.0}, {})) is None
        assert device.store.ahead.current(BED) == session
    device.clock.at_s += 10
    device.store.ahead.settle()
    assert device.say(1_003) == session
    assert device.counters() == {"dropped-records": 2}


def _refuses(*_: object) -> None:
    raise StoreError("store-write", "no")
