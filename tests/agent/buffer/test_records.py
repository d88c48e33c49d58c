"""Records: what goes in comes out, in the order of time, bound to its place, and counted like signal."""

import math
import sqlite3
from contextlib import closing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.records import MAX_FIELDS, MAX_RECORD_BYTES, decode_record, encode_record
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Mark, MarkKind, Quality, Record
from bedside.service.platform import SystemClock, SystemEntropy

KEY = bytes(range(32))
BED = StreamId("bed-4")
T0 = 1_700_000_000_000_000_000
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
VALUES = st.floats(allow_infinity=False)
RECORDS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=20)


def vitals(at_s: float, **values: float) -> Record:
    return Record(BED, T0 + round(at_s * 1e9), values or {"hr": 61.0, "spo2": 97.5}, {"hr": "/min"}, Quality.SIMULATED)


@pytest.fixture
def store(tmp_path):
    opened = BufferStore(tmp_path / "b.db", KEY, SystemClock(), SystemEntropy(), gap_s=60.0)
    yield opened
    opened.close()


def stored(tmp_path, session: str, from_ns: int = 0, to_ns: int | None = None) -> list[Record]:
    with closing(BufferReader(tmp_path / "b.db", KEY)) as reader:
        found = list(reader.records(BED, session, from_ns, to_ns))
        assert reader.unreadable == 0
    return found


def test_records_come_back_in_the_order_of_time(store, tmp_path) -> None:
    said = [vitals(at_s) for at_s in (3, 1, 2.5, 2.25, 10)] + [vitals(10, hr=62.0)]
    sessions = {store.add_record(record) for record in said}
    assert len(sessions) == 1
    session = sessions.pop()
    assert stored(tmp_path, session) == []
    assert store.flush() == 6
    found = stored(tmp_path, session)
    assert found == sorted(said, key=lambda record: record.time_ns)
    assert stored(tmp_path, session, T0 + 2_250_000_000, T0 + 3 * 10**9) == [said[3], said[2]]


def test_a_missing_value_stays_missing(store, tmp_path) -> None:
    session = store.add_record(vitals(0, hr=math.nan, spo2=97.0))
    store.flush()
    (record,) = stored(tmp_path, session)
    assert math.isnan(record.values["hr"])
    assert record.values["spo2"] == 97.0


def test_a_silence_or_a_mark_begins_another_session(store) -> None:
    first = store.add_record(vitals(0))
    assert store.add_record(vitals(59)) == first
    second = store.add_record(vitals(200))
    assert second != first
    store.mark(Mark(BED, T0 + 201 * 10**9, T0 + 201 * 10**9, "", "adt", MarkKind.SESSION_OPEN))
    third = store.add_record(vitals(202))
    assert len({first, second, third}) == 3
    store.mark(Mark(BED, T0 + 203 * 10**9, T0 + 203 * 10**9, "", "adt", MarkKind.SESSION_CLOSE))
    assert store.sessions.current(BED) is None


def test_a_restart_goes_on_with_the_session_behind_its_last_record(tmp_path) -> None:
    for at_s in (0, 50, 100):
        store = BufferStore(tmp_path / "b.db", KEY, SystemClock(), SystemEntropy(), gap_s=60.0)
        session = store.add_record(vitals(at_s))
        assert store.sessions.last_end_ns(BED) == T0 + at_s * 10**9
        store.close()
    assert len(stored(tmp_path, session)) == 3


@pytest.mark.parametrize("change", ["id = id + 1", "id = id + 16777216", "time_ns = time_ns + 1", "session = 'a'"])
def test_a_record_in_another_place_does_not_open(tmp_path, change) -> None:
    store = BufferStore(tmp_path / "b.db", KEY, SystemClock(), SystemEntropy())
    session = store.add_record(vitals(0))
    store.add_record(Record(BED, T0 + 20 * 10**9, {"hr": 1.0}))
    store.close()
    with closing(sqlite3.connect(tmp_path / "b.db")) as db, db:
        db.execute(f"UPDATE records SET {change} WHERE time_ns = {T0}")
    with closing(BufferReader(tmp_path / "b.db", KEY)) as reader:
        found = list(reader.records(BED, "a" if "session" in change else session))
        assert reader.unreadable == 1
        assert len(found) == ("session" not in change)


@settings(max_examples=200, deadline=None)
@given(RECORDS, st.integers(0, 15))
def test_any_record_within_the_limits_is_packed_and_unpacked_exactly(values, quality) -> None:
    record = Record(BED, T0, values, dict.fromkeys(list(values)[:3], "mm[Hg]"), Quality(quality))
    again = decode_record(encode_record(record), BED, T0)
    assert again.values.keys() == values.keys()
    assert all(again.values[name] == value or math.isnan(value) for name, value in values.items())
    assert (again.units, again.quality) == (record.units, record.quality)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | RECORDS.map(lambda values: encode_record(Record(BED, T0, values))), st.data())
def test_bytes_that_are_no_record_are_malformed_and_nothing_else(data, draw) -> None:
    flip = draw.draw(st.integers(0, max(0, len(data) - 1)))
    for damaged in (data[:flip], data[:flip] + bytes([draw.draw(st.integers(0, 255))]) + data[flip + 1 :]):
        with suppress(MalformedError):
            decode_record(damaged, BED, T0)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"": 1.0},
        {"n" * 65: 1.0},
        {"hr": math.inf},
        {"\ud800": 1.0},
        {str(number): 1.0 for number in range(MAX_FIELDS + 1)},
    ],
)
def test_what_is_beyond_the_limits_is_refused_and_opens_no_session(store, values) -> None:
    with pytest.raises(MalformedError) as caught:
        store.add_record(Record(BED, T0, values))
    assert caught.value.code == "record-format"
    assert store.sessions.current(BED) is None


def test_the_largest_record_fits() -> None:
    values = {f"{number:03}" + "\U0001f600" * 61: 1.0 for number in range(MAX_FIELDS)}
    data = encode_record(Record(BED, T0, values, dict.fromkeys(values, "\U0001f600" * 64)))
    assert MAX_RECORD_BYTES // 2 < len(data) <= MAX_RECORD_BYTES
    assert decode_record(data, BED, T0).values == values
