"""Raw signal expires into windows and summaries: none is lost, none is there twice, and training sees the same."""

from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.agent.buffer.labels import Labels
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.schema import LAST_NS
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import BufferConfig, StreamKeeping
from bedside.agent.windows.retention import Retention, RetentionRules
from bedside.agent.windows.training import TrainingSet, collect
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import Filter
from bedside.core.errors import StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Quality, Record
from bedside.ondevice.windows.targets import Question
from bedside.service.platform import SystemClock, SystemEntropy

KEY = bytes(range(32))
ECG, EHR = StreamId("ecg"), StreamId("ehr")
S = 1_000_000_000
MIN = 60 * S
HOUR = 60 * MIN
DAY = 24 * HOUR
T0 = 1_700_000_000 * S // MIN * MIN
RATE = 50
RULES = RetentionRules(raw_ns=HOUR, windows_ns=DAY, summaries_ns=10 * DAY)
SPEC = WindowSpec("ecg", 2, float(RATE), 64, 48, (0.5, 0.0), (0.01, 0.02))


_ALARM = (
    "INSERT INTO alarms (rule, stream, session, priority, raised_ns, value, cleared_ns, acknowledged_ns)"
    " VALUES ('fall', 'ecg', ?, 'high', ?, 1.0, 1, 1)"
)


class Ward:
    """A buffer, and its retention."""

    def __init__(self, path: Path, **options) -> None:
        self.path = path / "b.db"
        self.store = BufferStore(self.path, KEY, SystemClock(), SystemEntropy(), gap_s=120.0, **options)
        self.retention = Retention(self.path, KEY, RULES, SystemEntropy())

    def say(self, from_s: float, to_s: float, seed: int = 0, stream: StreamId = ECG, step: int = 10) -> SessionId:
        """Signal whose values tell its time; blocks of `step` samples, whose times waver by a third of a sample."""
        session = SessionId("")
        wobble = np.random.default_rng(seed)
        for first in range(round(from_s * RATE), round(to_s * RATE), step):
            at = np.arange(first, min(first + step, round(to_s * RATE)))
            values = np.stack([at % 30_000, np.sin(at / 7) * 1_000], axis=1).astype(np.int16)
            start_ns = T0 + first * S // RATE + int(wobble.integers(-S // RATE // 6, S // RATE // 6))
            session = self.store.append(Block(stream, start_ns, float(RATE), values, "mV", "", 0.5))
        self.store.flush()
        return session

    def label(self, from_s: float, to_s: float, name: str = "walk") -> None:
        self.store.add_label(ECG, T0 + round(from_s * S), T0 + round(to_s * S), name, "cli")

    def expire(self, now_ns: int, spec: WindowSpec | None = SPEC, steps: int = 10_000) -> int:
        for step in range(steps):
            if not self.retention.run(self.store, now_ns, [Question(spec)] if spec is not None else []):
                return step
        return steps

    def expire_raw_until(self, at_s: float, **options) -> int:
        return self.expire(T0 + round(at_s * S) + RULES.raw_ns, **options)

    def training(self, spec: WindowSpec = SPEC, **options) -> TrainingSet:
        return collect(self.path, KEY, Question(spec, ("walk", "run")), max_windows=10_000, **options)

    def reader(self):
        return closing(BufferReader(self.path, KEY))


@pytest.fixture
def ward(tmp_path: Path):
    made = Ward(tmp_path)
    yield made
    made.store.close()


def same(a: TrainingSet, b: TrainingSet) -> bool:
    """The same windows; their times may differ by a nanosecond of rounding."""
    return (
        np.array_equal(a.x, b.x)
        and np.array_equal(a.y, b.y)
        and a.sessions == b.sessions
        and bool((np.abs(a.start_ns - b.start_ns) <= 1).all())
    )


@settings(deadline=None, database=None, max_examples=12)
@given(
    st.integers(1, 200), st.integers(1, 120), st.floats(0, 59), st.lists(st.integers(1, 9), max_size=6), st.booleans()
)
def test_training_sees_the_same_windows_however_far_retention_has_come(
    tmp_path_factory, length, hop, offset_s, minutes, gap
) -> None:
    ward = Ward(tmp_path_factory.mktemp("w"))
    spec = msgspec.structs.replace(SPEC, length=length, hop=hop)
    ward.say(offset_s, 330.5)
    ward.say(333.2 if gap else 330.5, 600)
    ward.label(offset_s, 250)
    ward.label(250, 600, "run")
    before = ward.training(spec)
    assert len(before.y) > 50
    for minute in sorted(minutes):
        ward.expire_raw_until(minute * 60, spec=spec)
        assert same(ward.training(spec), before)
    with ward.reader() as reader:
        stored = reader.rows()["windows"]
        assert bool(stored) == bool(minutes)
    ward.store.close()


def test_only_a_lead_of_signal_stays_before_what_has_expired(ward) -> None:
    session = ward.say(0, 900)
    ward.label(0, 900)
    assert ward.expire_raw_until(600.5) == 10
    with ward.reader() as reader:
        parts = list(reader.parts(ECG, session))
        known = reader.session(session)
        assert known is not None
        assert known.expired_ns == T0 + 600 * S
        assert T0 + 520 * S < parts[0].start_ns < T0 + 571 * S
        assert known.raw_ns == parts[0].start_ns
    assert ward.expire_raw_until(600.5) == 0


def test_a_step_that_was_not_taken_is_taken_again_and_one_that_was_taken_is_not(ward) -> None:
    ward.say(0, 300)
    ward.label(0, 300)
    before, now_ns = ward.training(), T0 + 200 * S + RULES.raw_ns
    ward.retention.prepare(now_ns, [Question(SPEC)])  # the process is killed here
    step = ward.retention.prepare(now_ns, [Question(SPEC)])
    assert step is not None
    assert ward.store.expire(step)
    with ward.reader() as reader:
        rows = reader.rows()
    assert not ward.store.expire(step)
    with ward.reader() as reader:
        assert reader.rows() == rows
    assert same(ward.training(), before)


def test_a_step_that_fails_in_the_middle_changes_nothing(ward) -> None:
    ward.say(0, 300)
    ward.label(0, 300)
    before = ward.training()
    step = ward.retention.prepare(T0 + 200 * S + RULES.raw_ns, [Question(SPEC)])
    assert step is not None
    with ward.reader() as reader:
        rows = reader.rows()
    refuse = "CREATE TEMP TRIGGER stop BEFORE INSERT ON main.summaries BEGIN SELECT raise(ABORT, 'no'); END"
    ward.store.database.connection.execute(refuse)
    with pytest.raises(StoreError, match="expire"):
        ward.store.expire(step)
    ward.store.database.connection.execute("DROP TRIGGER stop")
    with ward.reader() as reader:
        assert reader.rows() == rows
    assert same(ward.training(), before)
    assert ward.store.expire(step)
    assert same(ward.training(), before)


def test_a_filter_has_settled_where_windows_are_cut_from_signal_again(ward) -> None:
    low_pass = Filter(sections=((0.0200834, 0.0401667, 0.0200834, -1.5610181, 0.6413515),), settle_s=2.0)
    spec = msgspec.structs.replace(SPEC, filter=low_pass)
    ward.say(0, 600)
    ward.label(0, 600)
    before = ward.training(spec)
    for minute in (1, 2, 5):
        ward.expire_raw_until(minute * 60, spec=spec)
        after = ward.training(spec)
        assert np.array_equal(after.y, before.y)
        assert np.allclose(after.x, before.x, atol=1e-5)


def test_a_value_that_is_no_number_begins_a_new_count_of_windows_after_expiry_too(ward) -> None:
    values = np.random.default_rng(3).standard_normal((RATE * 300, 2)).astype(np.float32)
    values[RATE * 30 + 7] = np.nan
    for first in range(0, len(values), 10):
        ward.store.append(Block(ECG, T0 + first * S // RATE, float(RATE), values[first : first + 10]))
    ward.store.flush()
    ward.label(0, 300)
    before = ward.training()
    ward.expire_raw_until(121)
    assert same(ward.training(), before)


def test_without_consent_neither_stored_windows_nor_signal_are_trained_on(ward) -> None:
    session = ward.say(0, 300)
    ward.label(0, 300)
    ward.expire_raw_until(180)
    assert len(ward.training().y)
    ward.store.sessions.set_consent(session, training=False)
    assert not len(ward.training().y)


def test_a_withdrawn_label_names_no_stored_window(ward) -> None:
    session = ward.say(0, 300)
    ward.label(0, 120)
    ward.label(120, 300, "run")
    ward.expire_raw_until(300)
    with ward.reader() as reader:
        (first, _) = reader.labels(session)
    Labels(ward.store).withdraw(first.number)
    assert set(ward.training().y.tolist()) == {1}


def test_a_minute_leaves_its_moments_gaps_and_flags(ward) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-500, 500, (RATE * 60, 2)).astype(np.int16)
    half = RATE * 30
    ward.store.append(Block(ECG, T0, float(RATE), values[:half], "mV", "", 0.5))
    session = ward.store.append(
        Block(ECG, T0 + 31 * S, float(RATE), values[half:-RATE], "mV", "", 0.5, Quality.SATURATED)
    )
    ward.say(60, 300)
    ward.expire_raw_until(70)
    with ward.reader() as reader:
        (summary,) = reader.summaries(ECG, session)
    physical = values[:-RATE] * 0.5
    assert (summary.minute, summary.gaps, summary.quality) == (T0 // MIN, 1, Quality.SATURATED)
    for channel, column in zip(summary.channels, physical.T, strict=True):
        assert (channel.count, channel.unit) == (len(column), "mV")
        assert (channel.minimum, channel.maximum) == (column.min(), column.max())
        assert channel.mean == pytest.approx(column.mean())
        assert channel.deviation == pytest.approx(column.std())


def test_records_expire_into_moments_by_field_and_into_labelled_windows(ward) -> None:
    spec = WindowSpec("ehr", 2, 1.0, 1, 1, (0.0, 0.0), (1.0, 1.0), fields=("hr", "spo2"))
    for second in range(200):
        values = {"hr": 60.0 + second % 3, "spo2": float("nan") if second == 5 else 97.0}
        session = ward.store.add_record(Record(EHR, T0 + second * S, values, {"hr": "/min"}))
    ward.store.flush()
    ward.store.add_label(EHR, T0, T0 + 100 * S, "walk", "cli")
    before = ward.training(spec)
    assert len(before.y) == 100
    ward.expire_raw_until(70, spec=spec)
    with ward.reader() as reader:
        (summary,) = reader.summaries(EHR, session)
        assert next(record.time_ns for record in reader.records(EHR, session)) == T0 + 60 * S
        assert len(list(reader.windows(session, next(iter(_digests(ward)))))) == 60
    hr, spo2 = summary.channels
    assert (hr.name, hr.unit, hr.count, hr.mean) == ("hr", "/min", 60, pytest.approx(61.0))
    assert (spo2.count, spo2.minimum, spo2.deviation) == (59, 97.0, 0.0)
    assert same(ward.training(spec), before)


def _digests(ward: Ward) -> set[bytes]:
    return {row["spec"] for row in ward.store.database.rows("SELECT DISTINCT spec FROM windows")}


def test_an_open_session_keeps_a_minute_until_what_follows_is_there_or_it_is_quiet(ward) -> None:
    ward.say(0, 90)
    late_ns = T0 + 5 * DAY
    assert ward.expire(late_ns) == 1  # the first minute; the second may still grow
    ward.say(90, 130)
    assert ward.expire(late_ns) == 1
    assert ward.expire(late_ns + 11 * MIN) == 1
    with ward.reader() as reader:
        (session,) = reader.sessions(ECG)
        summaries = list(reader.summaries(ECG, session.session))
    counts = [summary.channels[0].count for summary in summaries]
    assert np.abs(np.array(counts) - [60 * RATE, 60 * RATE, 10 * RATE]).max() <= 1  # times waver over the minute's end
    assert sum(counts) == 130 * RATE


def test_what_is_old_goes_in_its_turn_and_the_closed_session_last(ward) -> None:
    session = ward.say(0, 300)
    ward.label(0, 300)
    ward.store.sessions.close(ECG, T0 + 300 * S)
    ward.expire(T0 + 2 * HOUR)
    with ward.reader() as reader:
        rows, known = reader.rows(), reader.session(session)
        assert known is not None
        assert (rows["blobs"], rows["summaries"], known.expired_ns) == (0, 5, LAST_NS)
        assert rows["windows"] > 200
    ward.expire(T0 + 2 * DAY)
    with ward.reader() as reader:
        rows = reader.rows()
        assert (rows["windows"], rows["summaries"], rows["labels"], rows["sessions"]) == (0, 5, 1, 1)
        counted = reader.counters()
        windows = counted["stored-windows"]
    ward.store.add_prediction(Prediction(ECG, session, T0, T0 + S, "walk", 0.9, bytes(32), 0.0))
    ward.store.run("alarm", lambda tx: tx.execute(_ALARM, (session, T0)))
    ward.store.flush()
    ward.expire(T0 + 11 * DAY)
    with ward.reader() as reader:
        rows = reader.rows()
        assert sum(rows.values()) == rows["counters"]
        gone = {"summaries": 5, "predictions": 1, "labels": 1, "alarms": 1}
        assert reader.counters() == {**counted, **{f"expired-{table}": amount for table, amount in gone.items()}}
        assert (counted["expired-samples"], counted["expired-windows"]) == (300 * RATE, windows)


def test_what_goes_with_its_session_is_counted(ward) -> None:
    ward.say(0, 60)
    session = ward.store.sessions.open(ECG, T0 + MIN, "cli")
    ward.store.sessions.close(ECG, T0 + 2 * MIN)
    ward.store.run("alarm", lambda tx: tx.execute(_ALARM, (session, T0 + 20 * DAY)))
    ward.expire(T0 + 12 * DAY)
    with ward.reader() as reader:
        assert (reader.rows()["alarms"], reader.counters()["expired-alarms"]) == (0, 1)


def test_a_session_in_which_nothing_was_said_goes_in_its_time(ward) -> None:
    ward.store.sessions.open(StreamId("silent"), T0, "cli")
    ward.store.sessions.close(StreamId("silent"), T0 + MIN)
    ward.expire(T0 + 11 * DAY)
    with ward.reader() as reader:
        assert reader.sessions() == []


def test_streams_may_be_kept_longer_than_others(tmp_path) -> None:
    config = BufferConfig(raw_hours=1.0, streams=[StreamKeeping(stream="ecg", raw_hours=2.0)])
    ward = Ward(tmp_path)
    ward.retention = Retention(ward.path, KEY, RetentionRules.of(config), SystemEntropy())
    ward.say(0, 180)
    ward.say(0, 180, stream=EHR)
    ward.expire(T0 + HOUR + 100 * S)
    with ward.reader() as reader:
        assert [session.expired_ns for session in reader.sessions()] == [0, T0 + MIN]
    ward.store.close()
