"""What is dropped when the file is full: in which order, counted by stream, and within which bounds."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.agent.buffer.derived import seal_window
from bedside.agent.buffer.eviction import used_bytes
from bedside.agent.buffer.expiry import ExpiredMinute
from bedside.agent.buffer.inspection import describe
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Explanation, Moments, Prediction, StoredWindow, Summary
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Quality, Record
from bedside.service.platform import SystemClock, SystemEntropy

KEY = bytes(range(32))
LOW, HIGH, EHR = StreamId("low"), StreamId("high"), StreamId("ehr")
T0 = 1_700_000_000
CAP = 512 << 10
_RNG = np.random.default_rng(7)


def open_store(path: Path, **options) -> BufferStore:
    return BufferStore(path, KEY, SystemClock(), SystemEntropy(), **{"cap_bytes": CAP, **options})


def say(store: BufferStore, stream: StreamId, second: int, samples: int = 250) -> SessionId:
    values = _RNG.integers(-3000, 3000, (samples, 4), np.int16)
    return store.append(Block(stream, (T0 + second) * 10**9, float(samples), values))


def seconds(path: Path, stream: StreamId) -> list[int]:
    with closing(BufferReader(path, KEY)) as reader:
        (session,) = reader.sessions(stream)
        return [part.second - T0 for part in reader.parts(stream, session.session)]


def counters(path: Path) -> dict[StreamId, dict[str, int]]:
    found: dict[StreamId, dict[str, int]] = {}
    for row in describe(path)["counters"]:
        found.setdefault(row["stream"], {})[row["counter"]] = row["value"]
    return found


def test_signal_of_a_lower_priority_goes_first_and_the_oldest_of_it(tmp_path) -> None:
    store = open_store(tmp_path / "b.db", priorities={HIGH: 1})
    for second in range(200):
        say(store, LOW, second, 500)
        say(store, HIGH, second, 500)
        store.flush()
        assert store.bytes <= CAP
    low, high = seconds(tmp_path / "b.db", LOW), seconds(tmp_path / "b.db", HIGH)
    store.close()
    assert low in ([], [199]), "but the newest, nothing of the low one is left when the high one has to go"
    assert high == list(range(200 - len(high), 200))
    told, gone = counters(tmp_path / "b.db"), 200 - len(low)
    assert told[LOW] == {"evicted-parts": gone, "evicted-samples": 500 * gone}
    assert told[HIGH]["evicted-parts"] == 200 - len(high) > 0


def test_records_and_signal_of_one_priority_go_in_the_order_of_time(tmp_path) -> None:
    store = open_store(tmp_path / "b.db")
    for second in range(250):
        say(store, LOW, second)
        session = store.add_record(Record(EHR, (T0 + second) * 10**9, {f"field-{i}": 1.0 for i in range(30)}))
        store.flush()
    parts = seconds(tmp_path / "b.db", LOW)
    with closing(BufferReader(tmp_path / "b.db", KEY)) as reader:
        records = [record.time_ns // 10**9 - T0 for record in reader.records(EHR, session)]
    store.close()
    assert 0 < parts[0] - 1 <= records[0] <= parts[0] + 1
    assert counters(tmp_path / "b.db")[EHR]["evicted-records"] == records[0]


def derive(store: BufferStore, session: SessionId, minute: int) -> None:
    """Windows, a summary, a prediction with its explanation: of one minute."""
    with closing(BufferReader(store.database.path, KEY)) as reader:
        known = reader.session(session)
    assert known is not None
    rng = np.random.default_rng(minute)
    at_ns = (T0 + 60 * minute) * 10**9
    sealer = Sealer(KEY, SystemEntropy())
    windows = [
        StoredWindow(LOW, session, at_ns + i, at_ns + i + 1, b"s" * 32, "walk", rng.random((64, 4), np.float32))
        for i in range(20)
    ]
    sealed = [seal_window(sealer, one) for one in windows]
    summary = Summary(
        LOW, session, at_ns // (60 * 10**9), (Moments("0", "mV", 1, 1.0, 1.0, 1.0, 0.0),), 0, Quality.GOOD
    )
    assert store.expire(ExpiredMinute(known, at_ns, 0, 0, 0, windows=sealed, summaries=[summary]))
    number = store.add_prediction(Prediction(LOW, session, at_ns, at_ns + 1, "walk", 0.9, b"m" * 32, 0.001))
    store.flush()
    assert store.put_explanation(Explanation(number, session, "occlusion", rng.random((128, 4), np.float32)))


def test_windows_go_after_signal_then_what_is_smaller_and_labels_and_sessions_never(tmp_path) -> None:
    path = tmp_path / "b.db"
    store = open_store(path)
    session = say(store, LOW, 0)
    store.add_label(LOW, T0 * 10**9, (T0 + 1) * 10**9, "walk", "cli")
    seen: list[Counter[str]] = []
    for minute in range(1, 240):
        derive(store, session, minute)
        assert store.bytes <= CAP
        with closing(BufferReader(path, KEY)) as reader:
            seen.append(Counter(reader.rows()))
    store.close()
    last = seen[-1]
    assert (last["sessions"], last["labels"], last["blobs"]) == (1, 1, 0)
    told = counters(path)[LOW]
    assert told["evicted-parts"] == 1
    assert told["evicted-windows"] + last["windows"] == 239 * 20
    assert told["evicted-explanations"] + last["explanations"] == 239
    for rows, minute in zip(seen, range(1, 240), strict=True):
        assert rows["windows"] == 20 * minute or rows["blobs"] == 0
        assert rows["explanations"] == minute or rows["windows"] <= 20
    assert last["summaries"] == 239


def test_late_samples_are_the_oldest_there_are(tmp_path) -> None:
    store = open_store(tmp_path / "b.db", gap_s=10_000.0)
    for second in range(5_000, 5_250):
        say(store, LOW, second)
        store.flush()
    before = seconds(tmp_path / "b.db", LOW)
    say(store, LOW, 3)
    store.flush()
    for second in range(5_250, 5_253):
        say(store, LOW, second)
        store.flush()
    after = seconds(tmp_path / "b.db", LOW)
    store.close()
    assert 3 not in after
    assert set(before[5:]) <= set(after), "it went before what came in time"


def test_after_a_restart_the_oldest_is_still_known(tmp_path) -> None:
    for start in range(0, 300, 60):
        store = open_store(tmp_path / "b.db", priorities={HIGH: 1})
        for second in range(start, start + 60):
            say(store, LOW, second)
            say(store, HIGH, second, 20)
        store.flush()
        store.close()
    low, high = seconds(tmp_path / "b.db", LOW), seconds(tmp_path / "b.db", HIGH)
    assert high == list(range(300))
    assert low == list(range(300 - len(low), 300))
    assert low[0] > 0


def test_what_a_failed_commit_would_have_dropped_is_there_and_goes_with_the_next(tmp_path) -> None:
    store = open_store(tmp_path / "b.db")
    for second in range(300):
        say(store, LOW, second)
    store.flush()
    before = seconds(tmp_path / "b.db", LOW)
    assert before[0] > 0
    refuse = "CREATE TEMP TRIGGER stop AFTER INSERT ON main.counters BEGIN SELECT raise(ABORT, 'no'); END"
    refuse_too = refuse.replace("stop", "stop2").replace("AFTER INSERT", "AFTER UPDATE")
    for second in range(300, 310):
        say(store, LOW, second)
    store.database.connection.execute(refuse)
    store.database.connection.execute(refuse_too)
    with pytest.raises(Exception, match="signal was not written"):
        store.flush()
    assert seconds(tmp_path / "b.db", LOW) == before
    store.database.connection.execute("DROP TRIGGER stop")
    store.database.connection.execute("DROP TRIGGER stop2")
    store.flush()
    after = seconds(tmp_path / "b.db", LOW)
    store.close()
    assert after == list(range(310 - len(after), 310))


SAID = st.tuples(st.sampled_from([LOW, HIGH, EHR]), st.integers(1, 4_000), st.integers(0, 3))


@settings(max_examples=6, deadline=None, database=None)
@given(st.lists(SAID, min_size=80, max_size=140))
def test_the_file_and_its_log_stay_within_their_bounds_and_nothing_goes_uncounted(tmp_path_factory, said) -> None:
    path = tmp_path_factory.mktemp("e") / "b.db"
    store, written = open_store(path, priorities={HIGH: 2, EHR: 1}), 0
    largest = 0
    for at, (stream, samples, jump) in enumerate(said):
        say(store, stream, at * (1 + jump), samples)
        store.flush()
        written += samples
        assert store.bytes <= CAP
        largest = max(largest, path.stat().st_size)
        assert path.with_name("b.db-wal").stat().st_size <= CAP // 8 + (512 << 10) + 256_000
    with closing(BufferReader(path, KEY)) as reader:
        parts = [part for one in reader.sessions() for part in reader.parts(one.stream, one.session)]
        kept = sum(len(part.values) for part in parts)
        assert kept + reader.counters().get("evicted-samples", 0) == written
    assert largest <= CAP + 64 * 1024
    store.close()


def test_a_week_in_which_everything_is_dropped_does_not_let_the_file_grow(tmp_path) -> None:
    path = tmp_path / "b.db"
    store = open_store(path)
    sizes = []
    for hour in range(20):
        for second in range(0, 3_600, 150):
            say(store, LOW, hour * 3_600 + second)
            store.add_record(Record(EHR, (T0 + hour * 3_600 + second) * 10**9, {"hr": 61.0}))
            store.flush()
        sizes.append(path.stat().st_size)
    store.close()
    assert max(sizes) <= CAP + 64 * 1024
    assert sizes[-1] == max(sizes[10:])


def test_the_cap_counts_what_lies_in_the_file(tmp_path) -> None:
    store = open_store(tmp_path / "b.db")
    for second in range(60):
        say(store, LOW, second)
    store.flush()
    assert store.bytes == used_bytes(store.database.connection)
    store.close()
    with closing(sqlite3.connect(tmp_path / "b.db")) as db:
        assert used_bytes(db) == (tmp_path / "b.db").stat().st_size


def test_small_rows_of_a_low_priority_give_their_room_to_others(tmp_path) -> None:
    """They share pages with rows that stay; dropping them alone would free no page, and everything low would go."""
    store = open_store(tmp_path / "b.db", cap_bytes=1 << 20, priorities={f"high-{number}": 1 for number in range(6)})
    streams = [StreamId(f"{name}-{number}") for name in ("low", "high") for number in range(6)]
    for second in range(240):
        for stream in streams:
            say(store, stream, second, 20)
        if second % 5 == 0:
            store.flush()
    store.flush()
    with closing(BufferReader(tmp_path / "b.db", KEY)) as reader:
        kept = Counter(one.stream for one in reader.sessions() for _ in reader.parts(one.stream, one.session))
        assert counters(tmp_path / "b.db").keys() == set(streams[:6])
    assert {kept[stream] for stream in streams[6:]} == {240}
    assert all(60 < kept[stream] < 240 for stream in streams[:6])
    store.close()


def test_on_a_full_disk_the_oldest_makes_room_for_what_is_new(tmp_path) -> None:
    path = tmp_path / "b.db"
    store = open_store(path, cap_bytes=64 << 20)
    for second in range(300):
        say(store, LOW, second)
    store.flush()
    pages = store.database.row("PRAGMA page_count")[0]
    store.database.connection.execute(f"PRAGMA max_page_count={pages}")  # SQLite refuses as it does on a full disk
    store.add_label(LOW, T0 * 10**9, (T0 + 1) * 10**9, "walk", "cli")
    for second in range(300, 400):
        session = say(store, LOW, second)
        store.flush()
    store.database.connection.execute("PRAGMA max_page_count=1000000")
    with closing(BufferReader(path, KEY)) as reader:
        kept = [part.second - T0 for part in reader.parts(LOW, session)]
        assert kept == list(range(400 - len(kept), 400))
        assert counters(path)[LOW]["evicted-parts"] == 400 - len(kept) > 90
        assert len(reader.labels(session)) == 1
    for second in range(400, 500):
        say(store, LOW, second)
        store.flush()
    assert store.degraded == ""
    assert len(seconds(path, LOW)) == len(kept) + 100, "there is space again: nothing more has to go"
    store.close()


def record(store: BufferStore, second: int) -> None:
    values = {f"field_{number}": float(second) for number in range(40)}
    store.add_record(Record(EHR, (T0 + second) * 10**9, values, dict.fromkeys(values, "mm[Hg]")))


def test_records_of_the_last_hour_that_make_room_are_told_of_for_an_hour(tmp_path) -> None:
    store = open_store(tmp_path / "b.db", cap_bytes=256 << 10)
    for second in range(300):
        record(store, second)
    store.flush()
    assert counters(tmp_path / "b.db")[EHR]["evicted-records"] > 0
    assert "evicted-records" in store.degraded
    record(store, 4_500)
    store.flush()
    assert "evicted-records" not in store.degraded
    store.close()


def test_on_a_full_disk_records_of_the_last_hour_stay_and_new_ones_are_refused(tmp_path) -> None:
    path = tmp_path / "b.db"
    store = open_store(path, cap_bytes=64 << 20)
    for second in range(200):
        record(store, second)
        say(store, LOW, second)
    store.flush()
    store.database.connection.execute(f"PRAGMA max_page_count={store.database.row('PRAGMA page_count')[0]}")
    for second in range(200, 300):
        record(store, second)
        store.flush()  # signal makes room, also in the seconds of records
    assert counters(path).keys() == {LOW}
    seconds_left = iter(range(300, 3_000))
    with pytest.raises(StoreError, match="disk is full"):
        record_all(store, seconds_left)
    assert next(seconds_left) < 2_900
    assert "evicted-records" not in counters(path).get(EHR, {})
    waiting = len(list(store.group.waiting.rows))
    stored = store.database.row("SELECT count(*) FROM records")[0]
    store.database.connection.execute("PRAGMA max_page_count=1000000")
    store.flush()
    assert store.database.row("SELECT count(*) FROM records")[0] == stored + waiting > 300
    assert seconds_of_records(store)[:200] == list(range(200))
    store.close()


def record_all(store: BufferStore, seconds_of_it: Iterable[int]) -> None:
    for second in seconds_of_it:
        record(store, second)
        store.flush()


def seconds_of_records(store: BufferStore) -> list[int]:
    rows = store.database.rows("SELECT time_ns FROM records ORDER BY id")
    return [row["time_ns"] // 10**9 - T0 for row in rows]
